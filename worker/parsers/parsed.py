"""What a parser makes of an output: a page's text and blocks, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from ocrfleet.records.pages import Block

#: of blocks without a place: so many, and more than half of all, make a layout that can't be trusted
_FEWEST_UNPLACED = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """A page's text and blocks. `text` is all of the blocks' Markdown where there are any."""

    text: str
    blocks: tuple[Block, ...] = ()
    #: why this is not what was asked for, where it is not; what could be read of it is here all the same
    damage: str | None = None

    @classmethod
    def of(cls, blocks: Iterable[Block], *, damage: str | None = None) -> Self:
        """Return a page that is made of these blocks, with empty lines between them."""
        blocks = tuple(blocks)
        return cls(text="\n\n".join(block.markdown for block in blocks if block.markdown), blocks=blocks, damage=damage)


def misplaced(blocks: Iterable[Block]) -> str | None:
    """Say that most of these blocks, all of which should have a place on the page, have none; None when they do."""
    boxes = [bool(block.boxes) for block in blocks]
    missing = boxes.count(False)
    if missing >= _FEWEST_UNPLACED and 2 * missing > len(boxes):
        return f"{missing} of {len(boxes)} blocks have no place on the page"
    return None
