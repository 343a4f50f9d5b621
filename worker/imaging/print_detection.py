"""Print detection: finds marks of a letter's size, and rows of them, on a page image.

Each page is scaled to one size. Pixels that are darker than their surroundings form connected marks. A row is a sequence of
marks, each next to one of about the same height. Print has many rows in one direction and hardly any in the other; pictures,
textures and handwriting have few, by chance, in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The longer side of the scaled page in pixels: an A4 page's letters of 8 points are 5 pixels high, without ascenders.
LONG_SIDE = 1024
#: A smaller image is enlarged by at most this factor: more adds no detail.
_ENLARGED = 2.0
#: Side of the surroundings, in pixels, some two lines of print; ink is darker than their mean by so much, of 255.
_SURROUNDINGS, _DARKER = 31, 14
#: A mark of a letter's size: pixels of its height, and at least of its width; widths in heights, where letters or words touch.
_LOWEST, _HIGHEST, _NARROWEST, _LONGEST = 3, 40, 2, 12
#: Share of a mark's box that is ink: less is a frame or a curve.
_FILLED = 0.15
#: Where the next mark of a row is searched for: at these distances from the mark's end, in heights.
_GAPS = (0.2, 0.4, 0.7, 1.0)
#: The higher of two neighbours is at most so many times as high as the lower (ascenders, capitals), and they overlap by at least
#: this share of the lower one.
_HIGHER, _BESIDE = 2.2, 0.6
#: The fewest marks of a row: five are in line by chance.
_ROW = 6
#: A row's widest marks are at least so many times as wide as its narrowest: dots and dashes are mostly alike (unless they touch),
#: typewritten letters have 1.76.
_UNLIKE = 1.7
#: The number of doublings of the steps along a row: 256 marks.
_DOUBLINGS = 8
#: The most strokes in all rows of pixels, and the most marks of a letter's size: more are a texture. A mark's number has 16 bits.
_MOST_STROKES, _MOST_MARKS = 60_000, 15_000

#: left, top, width and height of each mark
_Stats = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of marks."""

    #: (x0, y0, x1, y1) in pixels of the page image
    box: tuple[float, float, float, float]
    marks: int


@dataclass(frozen=True, slots=True)
class Printed:
    """The print on a page: letters and rows."""

    #: approximate number of letters: each mark is one, or as many as its ratio of length to height
    letters: float
    #: in the direction with more marks in rows, which may be vertical
    rows: tuple[Row, ...]
    #: number of marks in rows of the other direction
    across: int


def enlargement(height: int, width: int) -> float:
    """Return the scale at which a page of this size in pixels is searched; below 1 it is reduced."""
    return min(LONG_SIDE / max(height, width), _ENLARGED)


def printed(pixels: NDArray[np.uint8]) -> Printed:
    """Return the print on a page, shape (height, width, 3), RGB: dark on light, or light on dark on the whole page.

    For a texture, return the number of strokes as letters, and no rows.
    """
    grey = _in_one_size(pixels)
    if np.median(grey[::8, ::8]) < 128:  # noqa: PLR2004 - the middle
        grey = 255 - grey
    dark = cv2.adaptiveThreshold(
        grey, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, blockSize=_SURROUNDINGS, C=_DARKER
    )
    strokes = cv2.countNonZero(cv2.subtract(dark[:, 1:], dark[:, :-1])) if dark.shape[1] > 1 else 0
    if strokes > _MOST_STROKES:
        return Printed(letters=strokes, rows=(), across=0)
    # Labels of 16 bits take half the time of 32.
    found = cv2.connectedComponentsWithStatsWithAlgorithm(dark, 8, cv2.CV_16U, cv2.CCL_DEFAULT)
    labels, stats = cast("NDArray[np.uint16]", found[1]), found[2]
    left, top, width, height, area = stats.T.astype(np.int64)
    fits = (height >= _LOWEST) & (height <= _HIGHEST) & (width >= _NARROWEST) & (width <= _LONGEST * height)
    fits &= area >= _FILLED * width * height
    fits[0] = False  # the paper
    marks = np.flatnonzero(fits)
    longer = np.maximum(width, height)[marks] / np.minimum(width, height)[marks]
    letters = float(longer.sum())
    if not 0 < len(marks) <= _MOST_MARKS:
        return Printed(letters=letters, rows=(), across=0)
    scale = max(pixels.shape[:2]) / max(grey.shape)
    lying = _rows(labels, (left, top, width, height), fits, marks)
    upright = _rows(labels.T, (top, left, height, width), fits, marks)
    if _in(lying) >= _in(upright):
        rows, across = [(_scaled(box, scale), count) for box, count in lying], _in(upright)
    else:
        rows = [(_scaled((y0, x0, y1, x1), scale), count) for (x0, y0, x1, y1), count in upright]
        across = _in(lying)
    return Printed(letters=letters, rows=tuple(Row(box, count) for box, count in rows), across=across)


def _in_one_size(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the page in grey, its longer side `LONG_SIDE` pixels, or less for a small image."""
    grey = cast("NDArray[np.uint8]", cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    # Halving is 40 times as fast as other averaging; the remaining reduction is by less than a half.
    while max(grey.shape) >= 2 * LONG_SIDE and min(grey.shape) > 1:
        half = grey.shape[1] // 2, grey.shape[0] // 2
        grey = cast("NDArray[np.uint8]", cv2.resize(grey, half, interpolation=cv2.INTER_AREA))
    factor = enlargement(*grey.shape)
    size = [max(round(side * factor), 1) for side in grey.shape[::-1]]
    how = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_LINEAR
    return cast("NDArray[np.uint8]", cv2.resize(grey, size, interpolation=how))


def _rows(
    labels: NDArray[np.uint16], stats: _Stats, fits: NDArray[np.bool_], marks: NDArray[np.intp]
) -> list[tuple[tuple[int, int, int, int], int]]:
    """Return the box of each row of marks that goes to the right, and how many marks it has."""
    left, top, width, height = stats
    following = np.zeros(len(left), np.int64)  # 0, the paper, is the end
    following[marks] = _neighbours(labels, stats, fits, marks)
    begins = fits.copy()
    begins[following[marks]] = False
    # Each doubling covers twice the distance, and updates a row's number of marks, its last, widest and narrowest mark.
    count, last = fits.astype(np.int64), np.arange(len(left))
    widest, narrowest, ahead = width.copy(), width.copy(), following.copy()
    for _ in range(_DOUBLINGS):
        goes_on = np.flatnonzero(ahead)
        if not len(goes_on):
            break
        there = ahead[goes_on]
        # All values are read before any is written.
        count[goes_on], last[goes_on], widest[goes_on], narrowest[goes_on], ahead[goes_on] = (
            count[goes_on] + count[there],
            last[there],
            np.maximum(widest[goes_on], widest[there]),
            np.minimum(narrowest[goes_on], narrowest[there]),
            ahead[there],
        )
    found = np.flatnonzero(begins & (count >= _ROW))
    # Two rows may have the same end, as an i and its dot do: only the longest is kept.
    found = found[np.argsort(-count[found], kind="stable")]
    found = found[np.unique(last[found], return_index=True)[1]]
    if not len(found) or np.quantile(widest[found], 0.9) < _UNLIKE * np.quantile(narrowest[found], 0.1):
        return []
    rows = []
    for first, end in zip(found, last[found], strict=True):
        y0 = min(top[first], top[end])
        y1 = max(top[first] + height[first], top[end] + height[end])
        rows.append(((int(left[first]), int(y0), int(left[end] + width[end]), int(y1)), int(count[first])))
    return rows


def _neighbours(
    labels: NDArray[np.uint16], stats: _Stats, fits: NDArray[np.bool_], marks: NDArray[np.intp]
) -> NDArray[np.int64]:
    """Return the next similar mark to the right of each mark; 0 without one."""
    left, top, width, height = stats
    heights, tops = height[marks], top[marks]
    right, middle, bottoms = (left + width)[marks], tops + heights // 2, tops + heights
    found = np.zeros(len(marks), np.int64)
    for gap in _GAPS:
        x = np.minimum(right + np.maximum((gap * heights).astype(np.int64), 1), labels.shape[1] - 1)
        there = labels[middle, x].astype(np.int64)
        lower, higher = np.minimum(height[there], heights), np.maximum(height[there], heights)
        beside = np.minimum(top[there] + height[there], bottoms) - np.maximum(top[there], tops)
        # Only to the right: a row never returns to itself.
        next_one = fits[there] & (left[there] + width[there] > right) & (left[there] > left[marks])
        next_one &= (found == 0) & (higher <= _HIGHER * lower) & (beside >= _BESIDE * lower)
        found[next_one] = there[next_one]
    return found


def _in(rows: list[tuple[tuple[int, int, int, int], int]]) -> int:
    return sum(count for _, count in rows)


def _scaled(box: tuple[int, int, int, int], scale: float) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (round(side * scale, 1) for side in box)
    return x0, y0, x1, y1
