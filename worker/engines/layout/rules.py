"""Finds printed rules in the page image: the lines between columns, articles and cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker.engines.layout.geometry import Box

#: The long side of the image that is searched, in pixels: hairlines of a newspaper are still dark at this size.
_LONG_SIDE = 1250
#: A rule is at least this share of the image's width long, and this many times as long as thick.
_LENGTH, _SLENDER = 0.04, 12
#: … and so many pixels: on a narrow strip, letters have strokes of that share.
_SHORTEST = 24
#: At most so many pieces are examined, the longest ones: a hatched picture has any number.
_MOST = 400
#: A pixel is dark if it is darker than its surroundings, of so many pixels, by so much of 255.
_AROUND, _DARKER = 31, 12
#: What is behind print is the median around it: at one n-th of the size, of so many pixels each way. It is dark below the middle.
_COARSE, _PAPER, _MIDDLE = 8, 15, 128
#: Pieces of one rule lie in a row with gaps of this share of the image's width: a rule down the page may cut it.
_GAP = 0.025
#: … and differ in height by so many pixels of the small image.
_STEP = 5


class Rules(NamedTuple):
    """Printed lines across and down a page, as boxes in pixels of its image."""

    across: tuple[Box, ...] = ()
    down: tuple[Box, ...] = ()


def find(pixels: NDArray[np.uint8]) -> Rules:
    """Return the rules of a page image (height, width, 3). Takes 10 ms."""
    height, width = pixels.shape[:2]
    scale = min(_LONG_SIDE / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    grey = _dark_on_light(cv2.resize(pixels[:, :, 1], size, interpolation=cv2.INTER_AREA))
    dark = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, _AROUND, _DARKER)
    length = max(round(_LENGTH * size[0]), _SHORTEST)
    sideways = np.ascontiguousarray(dark.T)
    down = tuple((x0, y0, x1, y1) for y0, x0, y1, x1 in _runs(sideways, length, scale))
    return Rules(_runs(dark, length, scale), down)


def _dark_on_light(grey: Any) -> Any:
    """Return the image with its dark parts inverted: between white letters on black, the gaps would be rules."""
    height, width = grey.shape
    small = cv2.resize(grey, (-(-width // _COARSE), -(-height // _COARSE)), interpolation=cv2.INTER_AREA)
    inverse = cv2.resize(cv2.medianBlur(small, _PAPER), (width, height)) < _MIDDLE
    return np.where(inverse, 255 - grey, grey).astype(np.uint8)


def _runs(dark: Any, length: int, scale: float) -> tuple[Box, ...]:
    """Return the long thin dark runs from left to right."""
    # At a height of two pixels a skewed rule is unbroken, and text is broken by the gaps between letters.
    thick = cv2.dilate(dark, np.ones((2, 1), np.uint8))
    found = cv2.morphologyEx(thick, cv2.MORPH_OPEN, np.ones((1, length), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
    pieces = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist() if w >= _SLENDER * max(h - 1, 1)]
    pieces = sorted(sorted(pieces, key=lambda piece: piece[0] - piece[2])[:_MOST])
    rules: list[tuple[int, int, int, int]] = []
    for x0, y0, x1, y1 in pieces:
        for index, (left, top, right, bottom) in enumerate(rules):
            near = abs((top + bottom) - (y0 + y1)) <= 2 * _STEP
            if near and left <= x0 <= right + _GAP * dark.shape[1]:
                rules[index] = left, min(top, y0), max(right, x1), max(bottom, y1)
                break
        else:
            rules.append((x0, y0, x1, y1))
    return tuple((x0 / scale, y0 / scale, x1 / scale, y1 / scale) for x0, y0, x1, y1 in rules)
