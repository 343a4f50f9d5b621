"""Escapes plain text as Markdown without markup, and builds the relative paths of pictures."""

from __future__ import annotations

import re

# Characters that CommonMark reads as markup inside a line, and at its beginning.
_INLINE = re.compile(r"[\\`*_\[\]|~]|<!?+|&(?=#?\w+;)")
#: Character references instead of backslashes: a tool may search the text for a page's marker, `<!-- page`.
_ENTITIES = {"&": "&amp;", "<!": "&lt;!"}
_LINE_START = re.compile(r"[0-9]{1,9}(?=[.)](?:[ \t]|$))|(?=#{1,6}(?:[ \t]|$)|[-+](?:[ \t:-]|$)|\*(?:[ \t]|$)|[>=]|:-)")
_LINE_END = re.compile(r"\r\n?|\n")

#: A formula within a line, by Pandoc's rule that excludes prices: no space inside the dollar signs, and no digit after them.
#: Linear: from a dollar sign it searches no further than to the next.
INLINE_FORMULA = re.compile(r"(?<![\\$])\$(?![\s$])((?:[^$\\\n]|\\.)++)(?<!\s)\$(?![\d$])")


def escape(line: str) -> str:
    """Return a line of plain text as Markdown without markup."""
    return escape_start(escape_inline(line.strip()))


def escape_inline(text: str) -> str:
    """Escape text for the middle of a line. At the beginning of a line it could still begin a block."""
    return _INLINE.sub(lambda match: _ENTITIES.get(match[0], "\\" + match[0]), text)


def escape_start(line: str) -> str:
    """Escape the beginning of a line that would begin a heading, list, quotation or table, or underline a heading."""
    start = _LINE_START.match(line)
    return f"{line[: start.end()]}\\{line[start.end() :]}" if start else line


def escaped(text: str) -> str:
    """Return plain text of any number of lines as Markdown without markup."""
    return "\n".join(escape(line) for line in _LINE_END.split(text))


def figure_path(document: str, name: str) -> str:
    """Return the path of a picture, relative to the folder of the document's text."""
    return f"figures/{document}/{name}"
