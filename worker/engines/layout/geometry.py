"""Boxes on a page image: x0, y0, x1, y1 in pixels, origin top left."""

from __future__ import annotations

from collections.abc import Iterable

Box = tuple[float, float, float, float]


def around(boxes: Iterable[Box]) -> Box:
    """Return the smallest box that holds all of these; there is at least one."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def covers(outer: Box, inner: Box, share: float = 0.5) -> bool:
    """Say whether a box covers at least this share of another's area."""
    width = min(outer[2], inner[2]) - max(outer[0], inner[0])
    height = min(outer[3], inner[3]) - max(outer[1], inner[1])
    area = (inner[2] - inner[0]) * (inner[3] - inner[1])
    return width > 0 and height > 0 and width * height >= share * area


def height(box: Box) -> float:
    return box[3] - box[1]


def width(box: Box) -> float:
    return box[2] - box[0]
