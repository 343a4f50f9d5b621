"""Markdown that says what a plain text says, and nothing else; and where a document's pictures lie beside it."""

from __future__ import annotations

import re

# What CommonMark would take for markup inside a line, and at its beginning: a page's text is data.
_INLINE = re.compile(r"[\\`*_\[\]|~]|<!?+|&(?=#?\w+;)")
#: A backslash would do for a reader of Markdown, but not for a tool that searches for a page's marker, `<!-- page`.
_ENTITIES = {"&": "&amp;", "<!": "&lt;!"}
_LINE_START = re.compile(r"[0-9]{1,9}(?=[.)](?:[ \t]|$))|(?=#{1,6}(?:[ \t]|$)|[-+](?:[ \t:-]|$)|\*(?:[ \t]|$)|[>=]|:-)")
_LINE_END = re.compile(r"\r\n?|\n")

#: A formula within a line, as Pandoc tells it from a price: no space inside its dollars, and no digit behind them. Linear:
#: from a dollar it looks no further than to the next.
INLINE_FORMULA = re.compile(r"(?<![\\$])\$(?![\s$])((?:[^$\\\n]|\\.)++)(?<!\s)\$(?![\d$])")


def escape(line: str) -> str:
    """Return a line of plain text as Markdown that reads the same and means nothing."""
    return escape_start(escape_inline(line.strip()))


def escape_inline(text: str) -> str:
    """Return text for the middle of a line: it may still begin a block where it begins one."""
    return _INLINE.sub(lambda match: _ENTITIES.get(match[0], "\\" + match[0]), text)


def escape_start(line: str) -> str:
    """Return a line so that it begins no heading, list, quotation or table, and underlines nothing."""
    start = _LINE_START.match(line)
    return f"{line[: start.end()]}\\{line[start.end() :]}" if start else line


def escaped(text: str) -> str:
    """Return plain text of any number of lines as Markdown that reads the same."""
    return "\n".join(escape(line) for line in _LINE_END.split(text))


def figure_path(document: str, name: str) -> str:
    """Return where a picture lies, from the folder that the document's text was delivered to."""
    return f"figures/{document}/{name}"
