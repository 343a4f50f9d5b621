"""A page as a tree of blocks, lines and words, independent of the engine and of the detail that it returned.

For formats with coordinates: ALTO, hOCR, PAGE, the text layer of a PDF. Stored words keep their boxes. For a page without stored
words, the box of each line is divided among its words by their lengths; words without a line get the box of their block.
"""

from __future__ import annotations

import operator
import unicodedata
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ocrfleet.records.pages import Placed, Role, Word
from worker.formats.blocks import read
from worker.formats.elements import to_plain
from worker.formats.page_text import plain_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ocrfleet.records.pages import Block, Line, PageResult

#: x0, y0, x1, y1 in pixels of the page image
Box = tuple[float, float, float, float]

#: The numbers of the block and the line of a word.
_LINE = operator.itemgetter(Word._fields.index("block"), Word._fields.index("line"))
#: A line belongs to a block that covers at least this share of it.
_INSIDE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """A line: at least one word, in reading order."""

    words: tuple[Word, ...]
    #: box of the line, in pixels of the page image
    box: Box
    #: confidence of the line, 0 to 1, as the engine returned it
    confidence: float | None = None

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBlock:
    """A block with its lines in reading order; a figure may have none."""

    role: Role
    #: box around the block and all its lines, in pixels of the page image
    box: Box
    lines: tuple[TextLine, ...] = ()
    #: its index in the `blocks` of the page; None for text outside of blocks
    index: int | None = None


def page_layout(result: PageResult) -> tuple[TextBlock, ...]:
    """Return the blocks of a page in reading order; () for a page without text. Each word is in exactly one block."""
    page = (0.0, 0.0, float(result.width_px or 1), float(result.height_px or 1))
    words = result.words or tuple(_words(result, page))
    paragraphs = _paragraphs(result)
    lines_of: dict[tuple[int | None, int], list[TextLine]] = {}
    for (block, number), members in groupby(words, key=_LINE):
        place = (block, paragraphs.get(number, 0) if block is None else 0)
        lines_of.setdefault(place, []).append(_line(tuple(members), number, result.lines))
    blocks = [_block(block, index, lines_of.pop((index, 0), [])) for index, block in enumerate(result.blocks)]
    loose = [
        TextBlock(role=Role.TEXT, box=around(line.box for line in lines), lines=tuple(lines))
        for lines in lines_of.values()
    ]
    return tuple(block for block in (*blocks, *loose) if block is not None)


def _paragraphs(result: PageResult) -> dict[int, int]:
    """Return the paragraph of each line by its index, separated by empty lines of the text; {} if they can't be matched."""
    numbers = [number for number, part in enumerate(result.text.split("\n\n")) for _ in part.split("\n")]
    return dict(enumerate(numbers)) if len(numbers) == len(result.lines) else {}


def _line(words: tuple[Word, ...], number: int, lines: Sequence[Line]) -> TextLine:
    boxes = [word.box for word in words]
    if number >= len(lines):
        return TextLine(words=words, box=around(boxes))
    known = lines[number]
    boxes.append(known.box)
    return TextLine(words=words, box=around(boxes), confidence=known.confidence)


def _block(block: Block, index: int, lines: list[TextLine]) -> TextBlock | None:
    boxes = [*block.boxes, *(line.box for line in lines)]
    if not boxes:
        return None
    return TextBlock(role=block.role, box=around(boxes), lines=tuple(lines), index=index)


def _words(result: PageResult, page: Box) -> Iterator[Word]:
    """Yield the words of a page without stored places."""
    if result.lines:
        for number, line in enumerate(result.lines):
            block = _block_of(line, result.blocks)
            for text, box in shared(line.text.split(), line.box):
                yield Word(text, box, None, number, block, Placed.INTERPOLATED)
        return
    whole = to_plain(read(result.text)) if result.markdown else result.text
    parts: list[tuple[int | None, str, Box]] = [
        (index, plain_text(block), around(block.boxes) if block.boxes else page)
        for index, block in enumerate(result.blocks)
    ]
    number = 0
    for index, text, box in parts or [(None, whole, page)]:
        for row in text.split("\n"):
            words = row.split()
            yield from (Word(word, box, None, number, index, Placed.BLOCK) for word in words)
            number += bool(words)


def _block_of(line: Line, blocks: Sequence[Block]) -> int | None:
    """Return the index of the block that covers most of a line; None if no block covers half of it."""
    shares = [max((_share(line.box, box) for box in block.boxes), default=0.0) for block in blocks]
    best = max(range(len(shares)), key=shares.__getitem__, default=None)
    return best if best is not None and shares[best] >= _INSIDE else None


def _share(inner: Box, outer: Box) -> float:
    width = max(min(inner[2], outer[2]) - max(inner[0], outer[0]), 0.0)
    height = max(min(inner[3], outer[3]) - max(inner[1], outer[1]), 0.0)
    return width * height / max((inner[2] - inner[0]) * (inner[3] - inner[1]), 1e-6)


def around(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around these boxes (at least one)."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def shared(words: Sequence[str], box: Box) -> list[tuple[str, Box]]:
    """Return the boxes of the words of a line: its box divided by their lengths, with a space of one character between them.

    A line of more than one character with a box that is higher than wide runs downwards. Words of right-to-left scripts start at
    the right.
    """
    units = sum(map(len, words)) + len(words) - 1
    if units < 1:
        return []
    x0, y0, x1, y1 = box
    down = y1 - y0 > x1 - x0 and units > 1
    step = ((y1 - y0) if down else (x1 - x0)) / units
    backwards = not down and is_right_to_left(words)
    found, place = [], 0
    for word in words:
        first, last = place * step, (place + len(word)) * step
        place += len(word) + 1
        if down:
            part = (x0, y0 + first, x1, y0 + last)
        elif backwards:
            part = (x1 - last, y0, x1 - first, y1)
        else:
            part = (x0 + first, y0, x0 + last, y1)
        a, b, c, d = (round(value, 1) for value in part)
        found.append((word, (a, b, c, d)))
    return found


def is_right_to_left(words: Sequence[str]) -> bool:
    """Return whether more letters of these words are of right-to-left scripts than of others."""
    kinds = [unicodedata.bidirectional(character) for word in words for character in word]
    return sum(kind in {"R", "AL"} for kind in kinds) > sum(kind == "L" for kind in kinds)
