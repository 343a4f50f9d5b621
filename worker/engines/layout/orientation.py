"""Find pages and parts of pages that are rotated by a quarter or a half turn, and rotate the boxes of their lines back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from worker.engines.layout.gutters import extents

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker.engines.layout.geometry import Box

#: A box at least this many times higher than wide is a line that runs up or down, or a column of Japanese.
_TALL = 2.0
#: Lines that run up or down are in one region if they are at most this far apart: across and along, in their widths.
_ACROSS, _ALONG = 1.5, 4.0
#: A box wider than this many times its height is an upright line, whatever surrounds it.
_LYING = 2.0


@dataclass(frozen=True, slots=True)
class SidewaysRegion:
    """Lines that run up or down on an upright page."""

    #: in pixels of the page
    box: Box
    #: numbers of the page's lines that are in it
    lines: tuple[int, ...]
    #: numbers of those that run up or down, longest first
    tall: tuple[int, ...]


def tall_lines(quads: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the numbers of the lines that run up or down, longest first; corners have shape (n, 4, 2)."""
    width, height = np.ptp(quads, axis=1).T.reshape(2, -1)
    tall = np.flatnonzero(height > _TALL * width)
    return tall[np.argsort(-height[tall], kind="stable")]


def mostly_tall(quads: NDArray[np.float64]) -> bool:
    """Say whether most of the text, by the length of its lines, runs up or down."""
    if not len(quads):
        return False
    length = np.ptp(quads, axis=1).max(axis=1)
    return bool(length[tall_lines(quads)].sum() > length.sum() / 2)


def sideways_regions(quads: NDArray[np.float64]) -> list[SidewaysRegion]:
    """Return the regions of lines that run up or down, with the short lines between them."""
    tall = tall_lines(quads)
    if not len(tall):
        return []
    boxes = np.concatenate((quads.min(axis=1), quads.max(axis=1)), axis=1)
    thickness = (boxes[tall, 2] - boxes[tall, 0])[:, None]
    reach = boxes[tall] + thickness * np.array([-_ACROSS, -_ALONG, _ACROSS, _ALONG])
    near = (reach[:, None, :2] <= boxes[None, tall, 2:]).all(axis=2) & (
        reach[:, None, 2:] >= boxes[None, tall, :2]
    ).all(axis=2)
    width, height = extents(quads)
    middle = quads.mean(axis=1)
    regions = []
    for members in _connected(near | near.T):
        own = tall[members]
        x0, y0 = boxes[own, :2].min(axis=0)
        x1, y1 = boxes[own, 2:].max(axis=0)
        margin = float(np.median(thickness[members]))
        inside = (middle > (x0 - margin, y0 - _ALONG * margin)).all(axis=1)
        inside &= (middle < (x1 + margin, y1 + _ALONG * margin)).all(axis=1) & (width <= _LYING * height)
        inside[own] = True
        (x0, y0), (x1, y1) = boxes[inside, :2].min(axis=0), boxes[inside, 2:].max(axis=0)
        box = float(x0), float(y0), float(x1), float(y1)
        regions.append(
            SidewaysRegion(
                box, tuple(np.flatnonzero(inside).tolist()), tuple(sorted(own.tolist(), key=tall.tolist().index))
            )
        )
    return regions


def _connected(near: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Return the connected groups of a symmetric matrix."""
    reached = near | np.eye(len(near), dtype=np.bool_)
    for _ in range(len(near).bit_length()):
        reached = reached @ reached
    first = reached.argmax(axis=1)
    return [np.flatnonzero(first == group) for group in np.unique(first)]


def back(box: Box, quarter: int, *, width: int, height: int, corner: tuple[float, float] = (0, 0)) -> Box:
    """Return the position on the page of a box in an image that was rotated counter-clockwise by `quarter` quarter turns.

    `width` and `height` are the image's before the rotation; `corner` is the position of its upper left corner on the page.
    """
    x0, y0, x1, y1 = box
    moved = {
        0: box,
        1: (width - y1, x0, width - y0, x1),
        2: (width - x1, height - y1, width - x0, height - y0),
        3: (y0, height - x1, y1, height - x0),
    }[quarter]
    left, top, right, bottom = (
        round(value + offset, 1) for value, offset in zip(moved, (*corner, *corner), strict=True)
    )
    return left, top, right, bottom
