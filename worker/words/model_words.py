"""The words of a model's text, in its order, each with its block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.formats.blocks import read
from worker.formats.elements import to_plain
from worker.formats.page_layout import around
from worker.formats.page_text import plain_text
from worker.words.placing import ModelWord, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ocrfleet.records.pages import Block, Word


def placed_words(
    text: str, blocks: Sequence[Block], seen: Sequence[Word], *, width: int, height: int
) -> tuple[Word, ...]:
    """Return the words of a model's Markdown, or of its blocks where it has any, with their places on the page image.

    `seen` are the words found on the image; the size of the image is in pixels.
    """
    boxes = [around(block.boxes) if block.boxes else None for block in blocks]
    return place(list(_words(text, blocks)), seen, boxes, (0.0, 0.0, float(width), float(height)))


def _words(text: str, blocks: Sequence[Block]) -> Iterator[ModelWord]:
    parts: list[tuple[int | None, str]] = [(index, plain_text(block)) for index, block in enumerate(blocks)]
    number = 0
    for index, part in parts or [(None, to_plain(read(text)))]:
        for row in part.split("\n"):
            yield from (ModelWord(word, index, number) for word in row.split())
            number += 1
