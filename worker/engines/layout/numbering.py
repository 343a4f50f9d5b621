"""Choose between reading by columns and by rows on a page with numbered parts (1. 2. 3.): the numbers must rise."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from worker.engines.layout import reading_order
from worker.engines.layout.geometry import height

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocrfleet.records.pages import Line
    from worker.engines.layout.reading_order import ColumnHints, Paragraph

_NUMBER = re.compile(r"([0-9]{1,3})[.)]\s")
#: The most numbers that are compared with each other: more are a list's or a table's, and take long.
_MOST = 100
#: Two parts begin beside each other if their first lines overlap by this share of a line's height.
_BESIDE = 0.5


def order(lines: Sequence[Line], *, angle: float, hints: ColumnHints) -> list[Paragraph]:
    """Return the paragraphs as `reading_order.order` does, with numbered parts in the order of their numbers if possible.

    Parts in a grid are read by rows if 2 is right of 1, and by columns if it is below.
    """
    best = reading_order.order(lines, angle=angle, hints=hints)
    wrong = _inversions(best)
    parts = [(int(found[1]), line) for line in lines if (found := _NUMBER.match(line.text))]
    if not wrong or len(parts) > _MOST:
        return best
    beside = sorted(
        ((first, left, second, right) for first, left in parts for second, right in parts if _beside(left, right)),
        key=lambda pair: (pair[1].box[1], pair[1].box[0], pair[3].box[0]),
    )
    rows = [
        (left.box[0], top, right.box[2], top)
        for first, left, second, right in beside
        if second == first + 1 and (top := min(left.box[1], right.box[1]) - 1)
    ]
    end = max(line.box[3] for line in lines)
    gutters = [
        (right.box[0], min(left.box[1], right.box[1]) - 1, right.box[0], end)
        for first, left, second, right in beside
        if second > first + 1
    ]
    for other in (replace(hints, across=(*hints.across, *rows)), replace(hints, gutters=gutters[:1])):
        paragraphs = reading_order.order(lines, angle=angle, hints=other)
        if _inversions(paragraphs) < wrong:
            best, wrong = paragraphs, _inversions(paragraphs)
    return best


def _beside(left: Line, right: Line) -> bool:
    shared = min(left.box[3], right.box[3]) - max(left.box[1], right.box[1])
    return left.box[2] < right.box[0] and shared > _BESIDE * min(height(left.box), height(right.box))


def _inversions(paragraphs: Sequence[Paragraph]) -> int:
    """Return how many pairs of the numbers at the beginnings of lines are in falling order."""
    lines = (line for rows in paragraphs for row in rows for line in row)
    numbers = [int(found[1]) for line in lines if (found := _NUMBER.match(line.text))][:_MOST]
    return sum(first > second for place, first in enumerate(numbers) for second in numbers[place + 1 :])
