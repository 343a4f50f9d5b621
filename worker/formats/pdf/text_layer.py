"""Selects the words for the invisible text of a page: all except those that the page already shows as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker.formats.page_layout import TextBlock, TextLine

#: Tolerance around the box of a visible word in each direction, as a share of its height.
_MARGIN = 0.25


def without_visible(
    blocks: Iterable[TextBlock], boxes: Sequence[Any], *, width: float, height: float
) -> tuple[TextBlock, ...]:
    """Return the blocks without words on visible words. `boxes`: boxes of visible words, as shares of the page's sides."""
    blocks = tuple(blocks)
    visible = np.array([box for box in boxes if _is_box(box)], np.float64).reshape(-1, 4) * (
        width,
        height,
        width,
        height,
    )
    if not len(visible):
        return blocks
    margin = _MARGIN * (visible[:, 3] - visible[:, 1])
    visible += np.stack([-margin, -margin, margin, margin], axis=1)
    return tuple(replace(block, lines=tuple(_left(block.lines, visible))) for block in blocks)


def _left(lines: Iterable[TextLine], visible: NDArray[np.float64]) -> Iterable[TextLine]:
    for line in lines:
        words = tuple(word for word in line.words if not _lies_on(word.box, visible))
        if words:
            yield replace(line, words=words)


def _lies_on(box: Sequence[float], visible: NDArray[np.float64]) -> bool:
    """Return whether the middle of a box is on a visible word."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    on = (visible[:, 0] <= x) & (x <= visible[:, 2]) & (visible[:, 1] <= y) & (y <= visible[:, 3])
    return bool(on.any())


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)  # noqa: PLR2004
