"""The boxes of lines that a detector found, and lines that it drew across a gutter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from worker.engines.layout import reading_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Only lines of this many times their height may reach over a gutter: they would be two columns of fourteen letters.
_CUTTABLE = 14.0
#: A gutter is at least this wide, in heights of a line's box (10 points in LaTeX's standard classes are 0.9).
_GAP = 0.6
#: Columns of pixels that differ from the line's ground by less than this share of its contrast are empty.
_EMPTY = 0.3
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
    crops: list[NDArray[np.uint8]], quads: NDArray[np.float64], angle: float
) -> tuple[list[NDArray[np.uint8]], NDArray[np.float64]]:
    """Cut the lines that the detector drew across a gutter; it does so where a gutter is hardly wider than a letter.

    Each long line is first cut at all its wide gaps. Where the reading order sees a gutter between two pieces, the cut
    stands; elsewhere it was a wide space.
    """
    width, height = extents(quads)
    # A piece is a line's number and where it begins and ends in it.
    pieces: list[tuple[int, float, float]] = []
    for number, crop in enumerate(crops):
        wide = _gaps(crop) if width[number] > _CUTTABLE * height[number] else []
        ends = [0.0, *(end for gap in wide for end in gap), 1.0]
        pieces += [(number, first, last) for first, last in zip(ends[::2], ends[1::2], strict=True)]
    if len(pieces) == len(crops):
        return crops, quads
    boxes = [around(_part(quads[number], first, last)) for number, first, last in pieces]
    parted = reading_order.parted(np.array(boxes), angle=angle)
    kept = [pieces[0]]
    for index, (number, first, last) in enumerate(pieces[1:]):
        if number != kept[-1][0] or parted[index, index + 1]:
            kept.append((number, first, last))
        else:
            kept[-1] = (number, kept[-1][1], last)
    cut_crops = []
    for number, first, last in kept:
        crop, margin = crops[number], _GAP / 3 * height[number] / width[number]  # of white, as lines have it
        begin, end = max(first - margin, 0.0), min(last + margin, 1.0)
        cut_crops.append(crop[:, round(begin * crop.shape[1]) : round(end * crop.shape[1])])
    return cut_crops, np.array([_part(quads[number], first, last) for number, first, last in kept])


def _part(quad: NDArray[np.float64], first: float, last: float) -> NDArray[np.float64]:
    """Return the corners of the part of a line from `first` to `last`, as shares of its width."""
    top, bottom = quad[1] - quad[0], quad[2] - quad[3]
    return np.array([quad[0] + first * top, quad[0] + last * top, quad[3] + last * bottom, quad[3] + first * bottom])


def _gaps(crop: NDArray[np.uint8]) -> list[tuple[float, float]]:
    """Return where the image of a line is empty for long: (first, last) as shares of its width."""
    width = max(round(crop.shape[1] * _PROFILE_HEIGHT / crop.shape[0]), 1)
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), (width, _PROFILE_HEIGHT), interpolation=cv2.INTER_AREA)
    grey = grey[_PROFILE_HEIGHT // 8 : -_PROFILE_HEIGHT // 8].astype(np.float32)  # without its neighbours' letters
    ground = np.median(grey)
    contrast = np.abs(np.percentile(grey, (2, 98)) - ground).max()
    empty = np.abs(grey - ground).max(axis=0) < _EMPTY * contrast
    # Where the mask changes, a run begins or ends; those at the line's own ends are no gaps.
    edges = np.flatnonzero(np.diff(np.concatenate(([False], empty, [False])).astype(np.int8)))
    runs = edges.reshape(-1, 2)
    inner = (runs[:, 0] > 0) & (runs[:, 1] < width) & (runs[:, 1] - runs[:, 0] > _GAP * _PROFILE_HEIGHT)
    return [(first / width, last / width) for first, last in runs[inner].tolist()]
