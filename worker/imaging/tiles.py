"""Divides large images into overlapping tiles, and joins the lines that cross an edge."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[int, int, int, int]

#: Two boxes belong to the same line if they overlap by this share of the smaller height: an edge may cut a line in half.
_SHARED = 0.6


def tiles(box: Box, *, side: float, overlap: float) -> list[Box]:
    """Cut a box (x0, y0, x1, y1) into tiles of at most `side` pixels that overlap by at least `overlap`."""
    x0, y0, x1, y1 = box
    return [
        (left, top, right, bottom)
        for top, bottom in _cut(y0, y1, side, overlap)
        for left, right in _cut(x0, x1, side, overlap)
    ]


def _cut(first: int, last: int, side: float, overlap: float) -> list[tuple[int, int]]:
    if last - first <= side:
        return [(first, last)]
    count = math.ceil((last - first - overlap) / (side - overlap))
    step = (last - first - side) / (count - 1)
    return [
        (math.floor(first + number * step), min(math.ceil(first + number * step + side), last))
        for number in range(count)
    ]


def stitched(found: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the lines of all tiles, each once; corners are in pixels of the page, shape (n, 4, 2) for each tile."""
    lines = [quad for quads in found for quad in quads]
    if not lines:
        return np.empty((0, 4, 2))
    tile = np.repeat(np.arange(len(found)), [len(quads) for quads in found])
    boxes = np.array([(*quad.min(axis=0), *quad.max(axis=0)) for quad in lines])
    # Each line is joined with the same lines of earlier tiles, which are then removed.
    gone = np.zeros(len(lines), np.bool_)
    for number in range(len(lines)):
        box = boxes[number]
        near = (boxes[:number, :2] < box[2:]).all(axis=1) & (boxes[:number, 2:] > box[:2]).all(axis=1)
        near &= ~gone[:number] & (tile[:number] != tile[number])
        for other in np.flatnonzero(near).tolist():
            if _same(lines[other], lines[number]):
                lines[number] = _joined(lines[other], lines[number])
                boxes[number] = (*lines[number].min(axis=0), *lines[number].max(axis=0))
                gone[other] = True
    return np.array([line for line, is_gone in zip(lines, gone, strict=True) if not is_gone])


def _same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Say whether two boxes cover the same part of a line."""
    upright = np.ptp(a[:, 0]) < np.ptp(a[:, 1]) and np.ptp(b[:, 0]) < np.ptp(b[:, 1])
    if upright:
        a, b = a[:, ::-1], b[:, ::-1]
    first, last = max(a[:, 0].min(), b[:, 0].min()), min(a[:, 0].max(), b[:, 0].max())
    if first >= last:
        return False
    x = (first + last) / 2
    (top_a, bottom_a), (top_b, bottom_b) = _edges(a, x), _edges(b, x)
    lower = min(bottom_a - top_a, bottom_b - top_b)
    return min(bottom_a, bottom_b) - max(top_a, top_b) > _SHARED * lower


def _edges(quad: NDArray[np.float64], x: float) -> tuple[float, float]:
    """Return the points of a line's upper and lower edge at `x`."""
    ordered = quad[np.argsort(quad[:, 0], kind="stable")]
    left, right = np.sort(ordered[:2, 1]), np.sort(ordered[2:, 1])
    width = max(ordered[2:, 0].mean() - ordered[:2, 0].mean(), 1e-6)
    share = (x - ordered[:2, 0].mean()) / width
    top, bottom = left + share * (right - left)
    return float(top), float(bottom)


def _joined(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest box around both, along the longer one."""
    longer = max((a, b), key=lambda quad: float(np.linalg.norm(quad[1] - quad[0])))
    along = (longer[1] - longer[0] + longer[2] - longer[3]) / 2
    along = along / max(float(np.linalg.norm(along)), 1e-6)
    down = np.array([-along[1], along[0]])
    points = np.concatenate((a, b))
    u, v = points @ along, points @ down
    return np.array(
        [
            x * along + y * down
            for x, y in ((u.min(), v.min()), (u.max(), v.min()), (u.max(), v.max()), (u.min(), v.max()))
        ]
    )
