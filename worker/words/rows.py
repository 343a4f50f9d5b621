"""Rows of a page: lines whose middles are at one height, from top to bottom, and in each from left to right."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.formats.page_layout import Box

#: Two lines are in one row if their middles differ by less than this, in the median height of all lines.
_LEVEL = 0.5


def rows_of(boxes: Sequence[Box]) -> list[list[int]]:
    """Return the indexes of boxes, row by row. Upright text only."""
    if not boxes:
        return []
    middles = [(y0 + y1) / 2 for _, y0, _, y1 in boxes]
    reach = _LEVEL * median(y1 - y0 for _, y0, _, y1 in boxes)
    rows: list[list[int]] = []
    mean = 0.0
    for index in sorted(range(len(boxes)), key=middles.__getitem__):
        if rows and middles[index] - mean < reach:
            rows[-1].append(index)
            mean += (middles[index] - mean) / len(rows[-1])
        else:
            rows.append([index])
            mean = middles[index]
    return [sorted(row, key=lambda index: boxes[index][0]) for row in rows]
