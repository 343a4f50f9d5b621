"""The boxes of lines that a detector found, and lines that it drew across a gutter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from worker.engines.layout import reading_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from worker.engines.layout.geometry import Box

#: Only lines of this many times their height may reach over a gutter: they would be two columns of fourteen letters.
_CUTTABLE = 14.0
#: A gutter is at least this wide, in heights of a line's box (10 points in LaTeX's standard classes are 0.9).
_GAP = 0.6
#: Columns of pixels that differ from the line's ground by less than this share of its contrast are empty.
_EMPTY = 0.3
#: Columns of pixels that all differ by this share are a rule's, where they are fewer than this share of the line's height.
_FULL, _RULE = 0.5, 0.25
#: A rule that runs down through a line is this many times as high; it may begin or end in this share of the line's height, and
#: letters stand this far beside it.
_LONG, _ENDS, _BESIDE = 2.5, 0.2, 0.08
#: A line that is longer, in its heights, is read in parts: what it takes grows with the length (80 MB for 180).
_LONGEST, _SEARCHED = 150, 20
#: Lines are scaled to this height, in pixels, before empty columns are sought: averages the grain of paper away.
_PROFILE_HEIGHT = 32


def extents(quads: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lines' widths and heights, along their own edges."""
    width = np.linalg.norm(quads[:, 1] - quads[:, 0], axis=1)
    height = np.linalg.norm(quads[:, 3] - quads[:, 0], axis=1)
    return width, np.maximum(height, 1.0)


def skew(quads: NDArray[np.float64]) -> float:
    """Return the page's skew in degrees: the median of its longer lines, as a short one's corners say little."""
    width, height = extents(quads)
    along = (quads[:, 1] - quads[:, 0])[width > 3 * height]
    if not len(along):
        return 0.0
    return math.degrees(float(np.median(np.arctan2(along[:, 1], along[:, 0]))))


def around(quad: NDArray[np.float64]) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = quad.min(axis=0).tolist(), quad.max(axis=0).tolist()
    return round(x0, 1), round(y0, 1), round(x1, 1), round(y1, 1)


def cut_at_gutters(
    crops: list[NDArray[np.uint8]], quads: NDArray[np.float64], angle: float, rules: Sequence[Box] = ()
) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64], NDArray[np.float64]]:
    """Cut the lines that the detector drew across a gutter; it does so where a gutter is hardly wider than a letter.

    Each long line is first cut at all its wide gaps, and where a rule runs down through it. Where the reading order sees a gutter between two pieces, the cut
    stands; elsewhere it was a wide space. Returns the pieces' images, their corners, and the corners of what the images show: a
    little more. `rules` are printed lines down the page: through no line of text runs one.
    """
    width, height = extents(quads)
    # A piece is a line's number and where it begins and ends in it.
    pieces: list[tuple[int, float, float]] = []
    sure: set[tuple[int, float]] = set()
    for number, crop in enumerate(crops):
        ruled = _ruled(crop, quads[number], rules)
        wide = _gaps_and_rules(crop) if width[number] > _CUTTABLE * height[number] else []
        free = [gap for gap in wide if not any(gap[0] <= last and first <= gap[1] for first, last in ruled)]
        sure |= {(number, last) for _, last in ruled}
        ends = [0.0, *(end for gap in sorted([*free, *ruled]) for end in gap), 1.0]
        pieces += [(number, first, last) for first, last in zip(ends[::2], ends[1::2], strict=True)]
    if len(pieces) == len(crops):
        return crops, quads, quads
    boxes = [around(_part(quads[number], first, last)) for number, first, last in pieces]
    parted = reading_order.parted(np.array(boxes), angle=angle)
    kept = [pieces[0]]
    for index, (number, first, last) in enumerate(pieces[1:]):
        if number != kept[-1][0] or parted[index, index + 1] or (number, first) in sure:
            kept.append((number, first, last))
        else:
            kept[-1] = (number, kept[-1][1], last)
    cut_crops, views = [], []
    for number, first, last in kept:
        crop, margin = crops[number], _GAP / 3 * height[number] / width[number]  # of white, as lines have it
        begin, end = max(first - margin, 0.0), min(last + margin, 1.0)
        cut_crops.append(crop[:, round(begin * crop.shape[1]) : round(end * crop.shape[1])])
        views.append(_part(quads[number], begin, end))
    return cut_crops, np.array([_part(quads[number], first, last) for number, first, last in kept]), np.array(views)


def _ruled(crop: NDArray[np.uint8], quad: NDArray[np.float64], rules: Sequence[Box]) -> list[tuple[float, float]]:
    """Return where rules run down through a line: (first, last) as shares of its width, none overlapping another."""
    left, top, right, bottom = around(quad)
    high = bottom - top
    found: list[tuple[float, float]] = []
    for x0, y0, x1, y1 in sorted(rules):
        through = y0 < top + _ENDS * high and y1 > bottom - _ENDS * high and y1 - y0 > _LONG * high
        if not through or x0 < left + high or x1 > right - high:
            continue
        # A skewed rule's box is wider than the rule: it is where the line is darkest.
        share = crop.shape[1] / (right - left)
        first, last = int((x0 - left) * share), int((x1 - left) * share) + 1
        darkest = first + int(crop[:, first:last].mean(axis=(0, 2)).argmin())
        margin = _BESIDE * crop.shape[0]
        begin, end = (darkest - margin) / crop.shape[1], (darkest + margin) / crop.shape[1]
        if not found or begin > found[-1][1]:
            found.append((begin, end))
    return found


def _part(quad: NDArray[np.float64], first: float, last: float) -> NDArray[np.float64]:
    """Return the corners of the part of a line from `first` to `last`, as shares of its width."""
    top, bottom = quad[1] - quad[0], quad[2] - quad[3]
    return np.array([quad[0] + first * top, quad[0] + last * top, quad[3] + last * bottom, quad[3] + first * bottom])


def _gaps_and_rules(crop: NDArray[np.uint8]) -> list[tuple[float, float]]:
    """Return where the image of a line is empty for long, or inked from top to bottom: (first, last) as shares of its width."""
    width = max(round(crop.shape[1] * _PROFILE_HEIGHT / crop.shape[0]), 1)
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), (width, _PROFILE_HEIGHT), interpolation=cv2.INTER_AREA)
    grey = grey[_PROFILE_HEIGHT // 8 : -_PROFILE_HEIGHT // 8].astype(np.float32)  # without its neighbours' letters
    ground = np.median(grey)
    contrast = np.abs(np.percentile(grey, (2, 98)) - ground).max()
    off = np.abs(grey - ground)
    gaps = _runs(off.max(axis=0) < _EMPTY * contrast)
    rules = _runs(off.min(axis=0) > _FULL * contrast)
    found = [
        *gaps[np.ptp(gaps, axis=1) > _GAP * _PROFILE_HEIGHT].tolist(),
        *rules[np.ptp(rules, axis=1) < _RULE * _PROFILE_HEIGHT].tolist(),
    ]
    return [(first / width, last / width) for first, last in sorted(found)]


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return where runs of a mask begin and end, shape (n, 2), but for those at its own ends."""
    # Where the mask changes, a run begins or ends.
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8))).reshape(-1, 2)
    inner: NDArray[np.intp] = edges[(edges[:, 0] > 0) & (edges[:, 1] < len(mask))]
    return inner


def cut_long(
    crops: list[NDArray[np.uint8]], quads: NDArray[np.float64], views: NDArray[np.float64]
) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64], NDArray[np.float64]]:
    """Cut lines that are too long to be read at once where they are emptiest; `views` are as `cut_at_gutters` returns them."""
    cut_crops, parts, part_views = [], [], []
    for crop, quad, view in zip(crops, quads, views, strict=True):
        height, width = crop.shape[:2]
        begin = 0
        while width - begin > _LONGEST * height:
            first = begin + (_LONGEST - _SEARCHED) * height
            grey = cv2.cvtColor(crop[:, first : first + _SEARCHED * height], cv2.COLOR_BGR2GRAY)
            uneven = cv2.blur(np.ptp(grey, axis=0).astype(np.float32)[None], (max(height // 4, 1), 1))[0]
            end = first + int(uneven.argmin())
            cut_crops.append(crop[:, begin:end])
            parts.append(_part(quad, begin / width, end / width))
            part_views.append(_part(view, begin / width, end / width))
            begin = end
        cut_crops.append(crop[:, begin:])
        parts.append(_part(quad, begin / width, 1.0) if begin else quad)
        part_views.append(_part(view, begin / width, 1.0) if begin else view)
    return cut_crops, np.array(parts), np.array(part_views)
