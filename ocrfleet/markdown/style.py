"""Converts a document's stored Markdown to a style at delivery, block by block, without recognising any page again.

The style is not part of a document's identity: the same stored text is delivered in every style. The stored text has the form
that worker/formats/ writes: an empty line between blocks, a table from `<table>` to `</table>` with each row on a line, a formula
on one line, code between fences.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ocrfleet.markdown.escape import INLINE_FORMULA, escape, escape_inline


class Tables(StrEnum):
    HTML = "html"
    #: Markdown tables where Markdown can express them: no cell spans others or has several lines
    MARKDOWN = "markdown"


@dataclass(frozen=True, slots=True)
class Style:
    """Options of the Markdown; the defaults deliver the stored text unchanged."""

    tables: Tables = Tables.HTML
    #: join the parts of a word that was hyphenated at the end of a line
    join_hyphens: bool = False


AS_STORED = Style()

_FENCE = re.compile(r"(`{3,}+)[^`]*+")
_FIGURE = re.compile(r"!\[(?:[^\[\]\\]|\\.)*+\]\(figures/[0-9a-f]{32}/([0-9]{6}-[0-9]{2}-[0-9a-f]{12}\.jpg)\)")

_CAPTION = re.compile(r"<caption>(.*)</caption>")
_CELL = re.compile(r"<t[dh]>([^<]*+)</t[dh]>")
_ROW = re.compile(r"<tr>(?:<t[dh]>[^<]*+</t[dh]>)++</tr>")

# A word that continues on the next line: at least two letters before the hyphen, a small letter after it. Not after a digit
# (1914-18), a single letter (X-ray) or a dash. The hyphens of old prints and other programs have no other meaning.
_DIVIDED = re.compile(r"(?:[^\W\d_][\u0300-\u036f]*+){2}([-\u2010\u00ad\u00ac\u2e17])$")
_REST = re.compile(r"([^\W_]\S*+)[ \t]*+")
_ONE_LETTER = re.compile(r"[^\W\d_]")
#: `Haupt- und Nebensätze`: the hyphen replaces the end of the compound. No divided word continues with these.
_AND = frozenset({"und", "oder", "sowie", "and"})
#: Characters of a word that may go on in the next line; what is longer is no word.
_LONGEST_WORD = 200
#: Beginnings of blocks that are no running text.
_NO_PROSE = ("<", "$$", "![", "```", "#", "---")


def restyled(lines: Iterable[str], style: Style) -> Iterator[str]:
    """Yield the lines of a stored Markdown text, without their ends, in a style. Keeps one block in memory."""
    for block in _blocks(lines):
        if style.tables is Tables.MARKDOWN and block[0] == "<table>":
            yield from _pipes(block)
        elif style.join_hyphens and not block[0].startswith(_NO_PROSE):
            yield from _joined(block)
        else:
            yield from block


def figures(lines: Iterable[str]) -> Iterator[str]:
    """Yield the names of the pictures that a stored Markdown text shows, in order. Code and text show none."""
    for block in _blocks(lines):
        found = _FIGURE.fullmatch(block[0])
        if found is not None:
            yield found[1]


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the blocks of a text. Empty lines between them are blocks, too; code is one block with its empty lines."""
    block: list[str] = []
    fence = None
    for line in lines:
        if fence is not None:
            block.append(line)
            if line == fence:
                yield block
                block, fence = [], None
        elif not line:
            if block:
                yield block
                block = []
            yield [line]
        else:
            opening = _FENCE.fullmatch(line) if not block else None
            fence = opening[1] if opening else None
            block.append(line)
    if block:
        yield block


def _pipes(table: list[str]) -> list[str]:
    """Return a table as lines with pipes; unchanged, if a cell spans others or has several lines."""
    rows = table[1:-1]
    caption = _CAPTION.fullmatch(rows[0]) if rows else None
    if caption is not None:
        rows = rows[1:]
    if not rows or not all(_ROW.fullmatch(row) for row in rows) or (caption is not None and "<" in caption[1]):
        return table
    cells = [[_cell(match[1]) for match in _CELL.finditer(row)] for row in rows]
    width = max(map(len, cells))
    # A table of GFM must have a head: the first row, which is a head in most tables.
    head, *body = [[*row, *[""] * (width - len(row))] for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * width, *body]]
    return [escape(html.unescape(caption[1])), "", *lines] if caption is not None else lines


def _cell(text: str) -> str:
    """Return a cell's text as Markdown, with its formulas unchanged and its pipes escaped.

    What has a sign that none of our formulas has is text between two dollars.
    """
    text = html.unescape(text)
    pieces, end = [], 0
    for formula in INLINE_FORMULA.finditer(text):
        if any(sign in formula[0] for sign in ("<", "`", "](")):
            continue
        pieces += [escape_inline(text[end : formula.start()]), formula[0].replace("|", r"\vert ")]
        end = formula.end()
    return "".join([*pieces, escape_inline(text[end:])])


def _joined(block: list[str]) -> Iterator[str]:
    """Yield the lines of a paragraph or a list, with the rest of each divided word moved to the line of its beginning.

    A line may grow over the whole block, so only its last word is looked at.
    """
    before, word = _before_last_word(block[0])
    line, code = [before], "`" in block[0]
    for following in block[1:]:
        text = following.lstrip(" ")
        whole = None if code or "`" in text else _whole(word, text)
        rest = following
        if whole is not None:
            word, rest = whole
            if not rest:
                before, word = _before_last_word(word)
                line.append(before)
                continue
            rest = " " * (len(following) - len(text)) + rest
        yield "".join([*line, word])
        before, word = _before_last_word(rest)
        line, code = [before], "`" in rest
    yield "".join([*line, word])


def _before_last_word(text: str) -> tuple[str, str]:
    space = text.rfind(" ") + 1
    return text[:space], text[space:]


def _whole(word: str, following: str) -> tuple[str, str] | None:
    """Return the complete last word of a line and the rest of the next line; None if the word is not divided.

    `com-` and `pound` are `compound`; of `mother-in-` and `law` the hyphen is kept, as of any word that had one before.
    """
    if len(word) > _LONGEST_WORD:
        return None
    divided, continued = _DIVIDED.search(word), _REST.match(following)
    if divided is None or continued is None:
        return None
    sign = divided[1]
    small = following[0].islower()
    if not (small or (sign in "\u00ad\u00ac" and _ONE_LETTER.match(following))):
        return None
    if sign in "-\u2010" and continued[1].strip(".,;:") in _AND:
        return None
    kept = sign if sign in "-\u2010" and re.search(r"\w[-\u2010]\w", word[:-1]) else ""
    left = following[continued.end() :]
    if left and not left[0].isalpha():  # a dash, a number: at the beginning of a line it might begin a list
        return word[:-1] + kept + following, ""
    return word[:-1] + kept + continued[1], left
