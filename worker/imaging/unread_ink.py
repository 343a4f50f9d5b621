"""Finds ink outside of the detected lines, for a second pass: the detector misses words on a nearly empty page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from worker.imaging.marks import Marks

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Ink outside of a line's box belongs to the line within these distances above and below and at its ends, in line heights.
_AROUND, _ENDS = 0.25, 0.4
#: Ink with less than this share of the lines' contrast is dirt or shows through the paper: in the corpus, such ink has up to 0.35.
_FAINT = 0.4
#: The fewest marks in lines from which the darkness of the text is measured.
_FEWEST = 20
#: The largest distances between marks of one patch, in heights.
_ACROSS, _DOWN, _FARTHEST = 1.0, 0.35, 200
#: Patches are found in an image reduced by this factor.
_SMALLER = 4
#: A patch of at least so many marks, of which a smaller share than this has a neighbour, is a picture.
_MANY, _IN_ROWS, _UNLIKE = 12, 0.3, 1.5
#: On a page without any text: the smallest contrast of a mark, of 255, and the smallest share of the marks' heights in rows.
_PLAIN, _MOSTLY = 40, 0.5
#: More marks than those of a few words are dots if the widest are less than so many times as wide as the narrowest, or if they
#: are lower than this, in pixels.
_WORDS, _UNLIKE_WIDTHS, _TELLING = 12, 1.2, 7.0
#: The most marks on a page; more are a texture.
_MOST = 8000


@dataclass(frozen=True, slots=True)
class Patch:
    """A group of neighbouring marks, in pixels of the page image."""

    box: tuple[float, float, float, float]
    marks: int
    #: of its higher marks
    height: float
    #: forms rows, like print
    in_rows: bool

    @property
    def area(self) -> float:
        x0, y0, x1, y1 = self.box
        return (x1 - x0 + 2 * self.height) * (y1 - y0 + 2 * self.height)


def unread(marks: Marks, quads: NDArray[np.float64]) -> Marks:
    """Return the marks outside of all lines that are about as dark as those in lines; `quads` has shape (n, 4, 2)."""
    x, y = marks.left + marks.width / 2, marks.top + marks.height / 2
    inside = np.zeros(len(marks), np.bool_)
    for quad in quads:
        along, down = (quad[1] + quad[2] - quad[0] - quad[3]) / 2, (quad[2] + quad[3] - quad[0] - quad[1]) / 2
        width, height = max(float(np.hypot(*along)), 1.0), max(float(np.hypot(*down)), 1.0)
        lower = min(width, height)
        across, upright = along / width, down / height
        dx, dy = x - quad[:, 0].mean(), y - quad[:, 1].mean()
        # Of a line that runs up or down, the ends are above and below.
        ends, sides = (_ENDS, _AROUND) if width >= height else (_AROUND, _ENDS)
        within = np.abs(dx * across[0] + dy * across[1]) < width / 2 + ends * lower
        inside |= within & (np.abs(dx * upright[0] + dy * upright[1]) < height / 2 + sides * lower)
    outside = ~inside
    in_lines = marks.contrast[inside]
    if len(in_lines) >= _FEWEST:
        outside &= marks.contrast >= _FAINT * float(np.median(in_lines))
    return marks.only(outside)


def patches(marks: Marks, shape: tuple[int, ...]) -> list[Patch]:
    """Return the groups of neighbouring marks on a page of `shape` (height, width)."""
    if not 0 < len(marks) <= _MOST:
        return []
    size = np.minimum(np.maximum(marks.height, np.minimum(marks.width, 3 * marks.height) / 2), _FARTHEST)
    canvas = np.zeros((shape[0] // _SMALLER + 1, shape[1] // _SMALLER + 1), np.uint8)
    x0, x1 = marks.left - _ACROSS * size, marks.left + marks.width + _ACROSS * size
    y0, y1 = marks.top - _DOWN * size, marks.top + marks.height + _DOWN * size
    corners = np.maximum(np.stack((x0, y0, x1, y1), axis=1), 0).astype(np.int64) // _SMALLER
    for left, top, right, bottom in corners.tolist():
        canvas[top : bottom + 1, left : right + 1] = 1
    labels = cv2.connectedComponents(canvas)[1]
    middle = (marks.top + marks.height / 2).astype(np.int64), (marks.left + marks.width / 2).astype(np.int64)
    own = labels[middle[0] // _SMALLER, middle[1] // _SMALLER]
    return [_patch(marks.only(own == number)) for number in np.unique(own)]


def _patch(marks: Marks) -> Patch:
    right, bottom = marks.left + marks.width, marks.top + marks.height
    box = float(marks.left.min()), float(marks.top.min()), float(right.max()), float(bottom.max())
    beside, above = float(marks.beside.mean()), float(marks.above.mean())
    more, less = max(beside, above), min(beside, above)
    in_rows = len(marks) > 1 and more >= _IN_ROWS and (len(marks) < _MANY or more >= _UNLIKE * less)
    return Patch(box, len(marks), float(np.percentile(marks.height, 75)), in_rows)


def print_marks(marks: Marks, shape: tuple[int, ...]) -> int:
    """Return how many marks are in rows, if most marks of the page are; 0 otherwise.

    Dirt, pictures, hatching and noise have few marks in rows; ink that shows through the paper is too faint.
    """
    plain = marks.only(marks.contrast >= _PLAIN)
    rows = [patch for patch in patches(plain, shape) if patch.in_rows]
    # Weighted by height: specks are many, and low.
    share = sum(patch.marks * patch.height for patch in rows) / max(float(plain.height.sum()), 1.0)
    if share < _MOSTLY or (len(plain) > _WORDS and _looks_like_dots(plain)):
        return 0
    return sum(patch.marks for patch in rows)


def _looks_like_dots(marks: Marks) -> bool:
    """Say whether marks are all alike, or too small to tell."""
    letters = marks.only(marks.beside | marks.above)
    along, high = np.where(letters.beside, (letters.width, letters.height), (letters.height, letters.width))
    narrow, wide = np.quantile(along, (0.1, 0.9)) if len(letters) else (1.0, 1.0)
    return bool(wide < _UNLIKE_WIDTHS * narrow or np.median(high) < _TELLING)
