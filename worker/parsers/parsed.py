"""The result of a parser: a page's text and blocks, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from ocrfleet.records.pages import Block

#: blocks without a box: this many, and more than half of all, mean that the layout can't be trusted
_FEWEST_UNPLACED = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """A page's text and blocks. `text` is all of the blocks' Markdown where there are any."""

    text: str
    blocks: tuple[Block, ...] = ()
    #: what is wrong with the output; None if nothing is. The readable parts are kept in any case
    damage: str | None = None

    @classmethod
    def of(cls, blocks: Iterable[Block], *, damage: str | None = None) -> Self:
        """Return a page that consists of these blocks, with empty lines between them."""
        blocks = tuple(blocks)
        return cls(text="\n\n".join(block.markdown for block in blocks if block.markdown), blocks=blocks, damage=damage)


def misplaced(blocks: Iterable[Block]) -> str | None:
    """Return the damage if most of these blocks lack the box that they should have; None otherwise."""
    boxes = [bool(block.boxes) for block in blocks]
    missing = boxes.count(False)
    if missing >= _FEWEST_UNPLACED and 2 * missing > len(boxes):
        return f"{missing} of {len(boxes)} blocks have no place on the page"
    return None
