"""Marks on a page image: connected ink of a letter's size, and whether it has neighbours.

In print most letters have another of about their height beside them, and few have one right above or below. Of the marks on
the corpus' pages of text 0.35 to 0.95 have a neighbour beside and at most 0.3 one below; in its pictures 0.2 have either.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A page whose longer side has more pixels is searched at half its size: this averages noise, and 5 points are 7 pixels.
_HALVED, _TOO_NARROW = 1400, 64
#: Side of the surroundings, in pixels: some lines of print.
_SURROUNDINGS = 61
#: Ink is darker than its surroundings by this many times the noise, but by at least and at most so much, of 255.
_NOISES, _FAINTEST, _PLAINEST = 4.0, 14.0, 48.0
#: Standard deviations of normal noise in the median difference of two pixels.
_DEVIATIONS = 1.05
#: A letter's height in pixels, and its longest width in heights, where letters touch.
_LOWEST, _HIGHEST, _LONGEST = 5, 170, 12
#: Share of a mark's box that is ink: less is a frame or a curve.
_FILLED = 0.1
#: Where a neighbour is searched for: distances from the mark's end and down its side, in its heights.
_GAPS, _LEVELS = (0.15, 0.3, 0.5, 0.75), (0.5, 0.8)
#: The higher of two neighbours is at most so many times as high as the lower, and they overlap by this share of the lower one.
_HIGHER, _SHARED = 2.2, 0.6
#: The fewest marks in rows from which the height of small letters is measured: this percentile of their heights.
_FEWEST, _SMALL = 5, 25
#: The part of a mark's box in which its darkness is measured, in shares of the box.
_PROBES_DOWN, _PROBES_ACROSS = (0.1, 0.3, 0.5, 0.7, 0.9), (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)

_Stats = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]"]


@dataclass(frozen=True, slots=True)
class Marks:
    """Marks of a letter's size, one entry each; lengths are pixels of the page image."""

    left: NDArray[np.float64]
    top: NDArray[np.float64]
    width: NDArray[np.float64]
    height: NDArray[np.float64]
    #: how much darker than its surroundings it is where it is darkest, of 255
    contrast: NDArray[np.uint8]
    #: has a mark like it to its right
    beside: NDArray[np.bool_]
    #: has a mark like it below
    above: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.left)

    def only(self, kept: NDArray[Any]) -> Marks:
        """Return those of a mask or of indices."""
        return Marks(*(getattr(self, field.name)[kept] for field in fields(self)))

    @property
    def letter_height(self) -> float:
        """Height of the small letters in rows, upright or rotated; 0 if there are hardly any."""
        sizes = np.where(self.beside, self.height, self.width)[self.beside | self.above]
        return float(np.percentile(sizes, _SMALL)) if len(sizes) >= _FEWEST else 0.0


def find_marks(grey: NDArray[np.uint8]) -> Marks:
    """Return the marks on a grey page, dark on light, or light on dark on the whole page. Takes 10 ms at 2500 pixels."""
    small = grey
    if max(grey.shape) > _HALVED and min(grey.shape) > _TOO_NARROW:
        half = grey.shape[1] // 2, grey.shape[0] // 2
        small = cast("NDArray[np.uint8]", cv2.resize(grey, half, interpolation=cv2.INTER_AREA))
    scale = grey.shape[1] / small.shape[1]
    if np.median(small[::8, ::8]) < 128:  # noqa: PLR2004 - the middle
        small = 255 - small
    noise = _DEVIATIONS * float(np.median(cv2.absdiff(small[::4, 1:], small[::4, :-1]))) if small.shape[1] > 1 else 0.0
    darker = cv2.subtract(cv2.blur(small, (_SURROUNDINGS, _SURROUNDINGS)), small)
    threshold = min(max(_NOISES * noise, _FAINTEST), _PLAINEST)
    dark = cv2.threshold(darker, threshold, 1, cv2.THRESH_BINARY)[1]
    found = cv2.connectedComponentsWithStats(dark, connectivity=8)
    labels, stats = cast("NDArray[np.int32]", found[1]), found[2]
    left, top, width, height, area = stats.T.astype(np.int64)
    rows, columns = dark.shape
    fits = (
        (height >= _LOWEST) & (height <= _HIGHEST) & (width <= _LONGEST * height) & (area >= _FILLED * width * height)
    )
    fits &= (left > 0) & (top > 0) & (left + width < columns) & (top + height < rows)  # else a scanner's edge
    fits[0] = False  # the paper
    kept = np.flatnonzero(fits)
    beside = _have_neighbour(labels, (left, top, width, height), fits, kept)
    above = _have_neighbour(labels.T, (top, left, height, width), fits, kept)
    left, top, width, height = left[kept], top[kept], width[kept], height[kept]
    contrast = np.zeros(len(kept), np.uint8)
    for down in _PROBES_DOWN:
        for across in _PROBES_ACROSS:
            probe = darker[top + (down * height).astype(np.int64), left + (across * width).astype(np.int64)]
            contrast = np.maximum(contrast, probe)
    return Marks(left * scale, top * scale, width * scale, height * scale, contrast, beside, above)


def _have_neighbour(
    labels: NDArray[np.int32], stats: _Stats, fits: NDArray[np.bool_], marks: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Say which of the marks have one like them to the right."""
    left, top, width, height = stats
    heights, tops, right = height[marks], top[marks], (left + width)[marks]
    found = np.zeros(len(marks), np.bool_)
    for level in _LEVELS:
        y = tops + (level * heights).astype(np.int64)
        for gap in _GAPS:
            x = np.minimum(right + np.maximum((gap * heights).astype(np.int64), 1), labels.shape[1] - 1)
            there = labels[y, x]
            lower, higher = np.minimum(height[there], heights), np.maximum(height[there], heights)
            shared = np.minimum(top[there] + height[there], tops + heights) - np.maximum(top[there], tops)
            found |= fits[there] & (there != marks) & (higher <= _HIGHER * lower) & (shared >= _SHARED * lower)
    return found
