"""Put the lines of a page in reading order, for engines that find lines but no order.

The method is Breuel's ("Two Geometric Algorithms for Layout Analysis", DAS 2002; "High Performance Document Layout
Analysis", 2003): find the gutters, white strips with text on both sides; say for each pair of lines which is read
first; sort topologically. Two things differ:

- In Breuel's method a line comes before every line to its right. That puts "Dear Sir" before a date at the right above
  it, so here left comes before right only across a gutter or within a row; otherwise the higher line comes first.
- The relation covers every pair, so the number of lines that come before a line is its place. On a contradictory
  page (a cycle) this still gives one place to each line, where a topological sort finds none.

A white strip with short text beside it is part of a table, not a gutter: tables are read row by row.

Other signs of columns are used where they are known (`ColumnHints`): a rule across several columns ends their gutters, so that the
text above it is read first, as on the front page of a newspaper; a rule down the page is a gutter; text beside a region of
running text is not part of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ocrfleet.records.pages import Line
    from worker.engines.layout.geometry import Box

#: Lines that follow each other in one row, left to right: fragments of a line, or cells of a table.
Row = list["Line"]
Paragraph = list[Row]

# All lengths are in heights of a line, the page's median, which makes them independent of the resolution.

#: Two lines are in one row if they overlap by this share of the smaller height.
_SHARED = 0.5
#: The lines of two columns are beside each other if they overlap by this share: their baselines may differ.
_BESIDE = 0.25
#: A white strip between lines is a gutter if at least so many rows have text on both sides of it; …
_GUTTER_ROWS = 4
#: … and so many between pieces of lines, because in some old books rivers of wide spaces run through four rows.
_PARTED_ROWS = 6
#: Text beside a gutter is at least this wide in the median, about fourteen letters; cells of tables are narrower.
_COLUMN_WIDTH = 7.0
#: A rule between columns has at least so many lines on each side, and at most this share of lines across it.
_RULE_LINES, _RULE_CROSSED = 3, 0.1
#: A region of running text has at least so many lines. What is beside it is at least this wide in the median, or no text.
_REGION_LINES, _BESIDE_WIDTH = 3, 4.0
#: A white band of this height across the page ends a gutter that has fewer than two rows beyond it: running heads and feet.
_BAND, _BAND_ROWS = 1.25, 2
#: A line crosses a gutter if it reaches this far to both sides; if it reaches less far, its box is too large.
_ACROSS = 0.8
#: A line's box may reach this far over a gutter's edge, because boxes are inexact by a few pixels.
_SLACK = 0.3
#: A paragraph begins after a gap that exceeds the page's median gap by this much (in line heights), …
_PARAGRAPH_GAP = 0.5
#: The largest median gap: on a page of few lines far apart, no gap is one between the lines of a paragraph.
_WIDEST_GAP = 4.0
#: … or with a row that begins this much further right than the rows above and below it.
_INDENT = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnHints:
    """Signs of a page's columns, besides its lines."""

    #: rules across the page, which end columns
    across: Sequence[Box] = ()
    #: rules that may stand between columns
    down: Sequence[Box] = ()
    #: regions of running text, each within one column
    regions: Sequence[Box] = ()
    #: strips that separate columns, whatever text is beside them
    gutters: Sequence[Box] = ()


_NOTHING = ColumnHints()


class _Boxes:
    """The lines' boxes as arrays, turned upright."""

    def __init__(self, box: NDArray[np.float64], angle: float) -> None:
        turn = math.radians(angle)
        x, y = (box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2
        width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
        # The box around a skewed line is higher than the line, by the difference of height of the line's two ends.
        height = np.maximum(height - width * abs(math.tan(turn)), height / 4)
        self.x = x * math.cos(turn) + y * math.sin(turn)
        self.y = y * math.cos(turn) - x * math.sin(turn)
        self.left, self.right = self.x - width / 2, self.x + width / 2
        self.top, self.bottom = self.y - height / 2, self.y + height / 2
        self.unit = max(float(np.median(height)), 1e-6)
        shared = np.minimum.outer(self.bottom, self.bottom) - np.maximum.outer(self.top, self.top)
        lower = np.minimum.outer(height, height)
        left_of = self.right[:, None] <= self.left[None, :] + _SLACK * self.unit
        left_of &= self.x[:, None] < self.x[None, :]
        #: [a, b]: a stands left of b, at least partly at its height
        self.beside: NDArray[np.bool_] = left_of & (shared > _BESIDE * lower)
        #: [a, b]: a and b are in one row, a left of b
        self.row_mate: NDArray[np.bool_] = left_of & (shared > _SHARED * lower)


def order(lines: Sequence[Line], *, angle: float = 0.0, hints: ColumnHints = _NOTHING) -> list[Paragraph]:
    """Return the page's paragraphs, each a list of rows, each a list of lines left to right; each line once.

    `angle` is the page's skew in degrees, positive when lines sink to the right. The result depends on boxes, angle and
    hints alone: lines with equal boxes keep their order.
    """
    if not lines:
        return []
    lines = sorted(lines, key=lambda line: line.box)  # so that every tie below is broken by geometry
    boxes = _Boxes(np.array([line.box for line in lines], dtype=np.float64), angle)
    across = _across_gutter(boxes, rows=_GUTTER_ROWS, stops=_turned(hints.across, angle))
    for box in _between(hints.down, hints.across):
        across |= _across_rule(boxes, box)
    for box in hints.regions:
        across |= _beside_region(boxes, box)
    for box in hints.gutters:
        across |= _parted_at(boxes, box)[0]
    same_row = boxes.row_mate & ~across
    left_first = across | same_row
    settled = left_first | left_first.T
    # Of each pair exactly one goes first.
    rank = np.empty(len(lines), dtype=np.intp)
    rank[np.lexsort((boxes.x, boxes.y))] = np.arange(len(lines))
    before = left_first | (~settled & (rank[:, None] < rank[None, :]))
    places = np.lexsort((rank, before.sum(axis=0)))
    rows: list[list[int]] = []
    for place in places.tolist():
        if rows and same_row[rows[-1][-1], place]:
            rows[-1].append(place)
        else:
            rows.append([place])
    return [[[lines[i] for i in row] for row in paragraph] for paragraph in _paragraphs(rows, boxes)]


def parted(boxes: NDArray[np.float64], *, angle: float = 0.0) -> NDArray[np.bool_]:
    """Return a matrix that is true at [a, b] where a gutter runs between boxes a and b, a left of it.

    `boxes` has shape (n, 4): x0, y0, x1, y1 in pixels. For engines whose lines may reach over a gutter: pass the pieces of
    each line, and cut the line between two pieces that a gutter separates.
    """
    if not len(boxes):
        return np.zeros((0, 0), dtype=np.bool_)
    return _across_gutter(_Boxes(boxes, angle), rows=_PARTED_ROWS, stops=_turned((), angle))


def text_of(paragraphs: Sequence[Paragraph]) -> str:
    """Return the text: a row on a line, an empty line between paragraphs."""
    return "\n\n".join("\n".join(" ".join(line.text for line in row) for row in rows) for rows in paragraphs)


def _turned(rules: Sequence[Box], angle: float) -> NDArray[np.float64]:
    """Return rules across the page, turned upright, as (left, right, y), shape (n, 3)."""
    box, turn = np.array(rules, dtype=np.float64).reshape(-1, 4), math.radians(angle)
    x, y, half = (box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2, (box[:, 2] - box[:, 0]) / 2
    middle = x * math.cos(turn) + y * math.sin(turn)
    return np.stack((middle - half, middle + half, y * math.cos(turn) - x * math.sin(turn)), axis=1)


def _between(down: Sequence[Box], across: Sequence[Box]) -> list[Box]:
    """Return the parts of rules down the page that lie between those across it."""
    parts: list[Box] = []
    for x0, y0, x1, y1 in down:
        x = (x0 + x1) / 2
        cuts = sorted((top + bottom) / 2 for left, top, right, bottom in across if left < x < right)
        ends = [y0, *(y for y in cuts if y0 < y < y1), y1]
        parts += [(x0, top, x1, bottom) for top, bottom in pairwise(ends)]
    return parts


def _parted_at(boxes: _Boxes, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], float]:
    """Return [a, b] for lines on both sides of an upright strip; which are left and right; and the share that crosses it."""
    x, reach = (box[0] + box[2]) / 2, _ACROSS * boxes.unit
    level = (boxes.y > box[1]) & (boxes.y < box[3])
    crossing = level & (boxes.left < x - reach) & (boxes.right > x + reach)
    left, right = level & ~crossing & (boxes.x < x), level & ~crossing & (boxes.x > x)
    return np.outer(left, right), left, right, float(crossing.sum() / max(level.sum(), 1))


def _across_rule(boxes: _Boxes, rule: Box) -> NDArray[np.bool_]:
    """Return [a, b] where a rule down the page separates columns of text. Cells of tables are narrower."""
    across, left, right, crossed = _parted_at(boxes, rule)
    lines = min(left.sum(), right.sum())
    if lines < _RULE_LINES or crossed > _RULE_CROSSED:
        return np.zeros_like(across)
    wide = (boxes.right - boxes.left) / boxes.unit
    return across & (min(np.median(wide[left]), np.median(wide[right])) >= _COLUMN_WIDTH)


def _beside_region(boxes: _Boxes, region: Box) -> NDArray[np.bool_]:
    """Return [a, b] where one of the two is in a region of running text and the other is in text beside it."""
    x0, y0, x1, y1 = region
    across = np.zeros((len(boxes.x), len(boxes.x)), dtype=np.bool_)
    wide, slack = (boxes.right - boxes.left) / boxes.unit, _SLACK * boxes.unit
    inside = (boxes.x > x0) & (boxes.x < x1) & (boxes.y > y0) & (boxes.y < y1)
    if inside.sum() < _REGION_LINES or np.median(wide[inside]) < _COLUMN_WIDTH:
        return across
    level = (boxes.bottom > y0 + slack) & (boxes.top < y1 - slack) & ~inside
    for beside, on_left in ((level & (boxes.right < x0 + slack), True), (level & (boxes.left > x1 - slack), False)):
        if beside.sum() > 1 and np.median(wide[beside]) >= _BESIDE_WIDTH:
            across |= np.outer(beside, inside) if on_left else np.outer(inside, beside)
    return across


def _across_gutter(boxes: _Boxes, *, rows: int, stops: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return [a, b]: a gutter is between a and b, and a is left of it. A gutter has at least `rows` with text on both sides.

    `stops` are rules across the page (left, right, y): they end a gutter, like lines that cross it.
    """
    count = len(boxes.x)
    # Each line with a neighbour on its left proposes a gutter just before its left edge: columns are flush left.
    ends = np.where(boxes.beside, boxes.right[:, None], -np.inf)
    right = np.flatnonzero(boxes.beside.any(axis=0))
    left = ends[:, right].argmax(axis=0)
    if not right.size:
        return np.zeros((count, count), dtype=np.bool_)
    gutter_x = boxes.left[right] - _SLACK * boxes.unit
    seed_y = boxes.y[right]

    # The gutter extends up and down to the next line, or rule, that crosses it, …
    reach = _ACROSS * boxes.unit
    crosses = (boxes.left[None, :] < gutter_x[:, None] - reach) & (boxes.right[None, :] > gutter_x[:, None] + reach)
    above = boxes.y[None, :] < seed_y[:, None]
    top = np.where(crosses & above, boxes.y[None, :], -np.inf).max(axis=1)
    bottom = np.where(crosses & ~above, boxes.y[None, :], np.inf).min(axis=1)
    if len(stops):
        over = (stops[:, 0] < gutter_x[:, None] - reach) & (stops[:, 1] > gutter_x[:, None] + reach)
        higher = stops[:, 2] < seed_y[:, None]
        top = np.maximum(top, np.where(over & higher, stops[:, 2], -np.inf).max(axis=1))
        bottom = np.minimum(bottom, np.where(over & ~higher, stops[:, 2], np.inf).min(axis=1))
    inside = (boxes.y[None, :] > top[:, None]) & (boxes.y[None, :] < bottom[:, None]) & ~crosses
    spanned = (boxes.right[left][None, :] <= gutter_x[:, None] + _SLACK * boxes.unit) & (
        boxes.left[right][None, :] >= gutter_x[:, None]
    )
    support = spanned & inside[:, left] & inside[:, right]
    # … or to the last band of the page that has rows on both sides of it.
    band = _bands(boxes)
    bands = np.arange(band.max() + 1)
    held = support.astype(np.float32) @ (band[right][:, None] == bands[None, :]) >= _BAND_ROWS
    first = np.where(held, bands, len(bands)).min(axis=1)
    last = np.where(held, bands, -1).max(axis=1)
    inside &= (band[None, :] >= first[:, None]) & (band[None, :] <= last[:, None])
    support &= inside[:, left] & inside[:, right]

    # It is accepted if enough rows have text on both sides, and that text is wide.
    width = (boxes.right - boxes.left) / boxes.unit
    real = support.sum(axis=1) >= rows
    for gutter in np.flatnonzero(real):
        pairs = support[gutter]
        real[gutter] = min(np.median(width[left[pairs]]), np.median(width[right[pairs]])) >= _COLUMN_WIDTH
    inside &= real[:, None]
    on_left = inside & (boxes.x[None, :] < gutter_x[:, None])
    on_right = inside & ~on_left
    # [a, b] is true when any gutter has a on its left and b on its right: a product of matrices.
    shared: NDArray[np.float32] = on_left.T.astype(np.float32) @ on_right.astype(np.float32)
    return shared > 0


def _bands(boxes: _Boxes) -> NDArray[np.intp]:
    """Return for each line the number of its band. White across the whole page separates bands."""
    down = np.argsort(boxes.top, kind="stable")
    reached = np.maximum.accumulate(boxes.bottom[down])
    fresh = boxes.top[down][1:] - reached[:-1] > _BAND * boxes.unit
    band = np.empty(len(down), dtype=np.intp)
    band[down] = np.concatenate(([0], np.cumsum(fresh)))
    return band


def _paragraphs(rows: list[list[int]], boxes: _Boxes) -> list[list[list[int]]]:
    """Split the rows into paragraphs at gaps and first-line indents, but not where only a new column begins."""
    top = np.array([boxes.top[row].min() for row in rows])
    bottom = np.array([boxes.bottom[row].max() for row in rows])
    left = np.array([boxes.left[row].min() for row in rows])
    right = np.array([boxes.right[row].max() for row in rows])
    # Whether a row is below the one before it in the same column; if not, their distance has no meaning.
    below = (top[1:] > top[:-1]) & (left[1:] < right[:-1]) & (left[:-1] < right[1:])
    gap = top[1:] - bottom[:-1]
    usual = min(float(np.median(gap[below])), _WIDEST_GAP * boxes.unit) if below.any() else 0.0
    wide = below & (gap > usual + _PARAGRAPH_GAP * boxes.unit)
    step = np.where(below, left[1:] - left[:-1], np.inf)  # how far a row begins right of the row above it
    further = np.append(left[1:-1] - left[2:], -np.inf)[: len(step)]  # … and of the row below it
    indented = (np.minimum(step, further) > _INDENT * boxes.unit) & np.append(below[1:], False)[: len(step)]
    paragraphs = [[rows[0]]]
    for row, begins in zip(rows[1:], (wide | indented).tolist(), strict=True):
        if begins:
            paragraphs.append([row])
        else:
            paragraphs[-1].append(row)
    return paragraphs
