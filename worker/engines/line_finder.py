"""Find the lines of a page with PP-OCR's detector: first in the whole page, then at ink outside of all lines.

The detector's input has at most 1280 pixels on a side. If a page's letters would be too small in that, the page is searched in
tiles. On a nearly empty page the detector's response is too weak for any box, but it finds the same words in a crop: marks that
look like letters and are in no line are searched again in crops (bench/sparse_pages.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from worker.imaging.tiles import Box, stitched, tiles
from worker.imaging.unread_ink import Patch, patches, unread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker.imaging.marks import Marks

#: The longer side of the detector's input in pixels: it finds as many words as at 1600, in 3/4 of the time.
DETECTOR_SIDE = 1280
#: The height of small letters in the detector's input, in pixels: it misses lower ones. On most pages they are 6 to 10.
_LOWEST, _USUAL = 4.5, 8.0
#: An image is enlarged by at most this factor: more adds no detail.
_ENLARGED = 2.0
#: Tiles overlap by this many letter heights: a few lines.
_OVERLAP = 8.0
#: The height of a crop's letters in pixels: between the first two the crop is not scaled, otherwise it is scaled to the last.
_READABLE, _LETTERS = (12.0, 40.0), 24.0
#: The margin of a crop: this many letter heights, plus this many pixels.
_MARGIN = (1.0, 12.0)
#: The fewest lines of a page that is not sparse.
_FULL = 20
#: The most pixels, and patches, outside of rows that are searched again: on a full page this takes 2 % of its time.
_BUDGET_FULL, _BUDGET_SPARSE, _MOST_PATCHES = 70_000.0, 500_000.0, 24
#: A line with at least this share in another line is a duplicate of it.
_COVERED = 0.5


class LineFinder:
    """Finds lines with a RapidOCR whose detector takes `DETECTOR_SIDE` pixels."""

    def __init__(self, ocr: Any) -> None:
        self._ocr = ocr

    def find(self, pixels: NDArray[np.uint8], marks: Marks) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the corners of the lines, shape (n, 4, 2), clockwise from the top left, and which the second pass found.

        `pixels` is BGR, shape (height, width, 3); `marks` are those on it.
        """
        height, width = pixels.shape[:2]
        letter = marks.letter_height
        if letter and letter * min(DETECTOR_SIDE / max(height, width), 1.0) < _LOWEST:
            first = self._in_tiles(pixels, (0, 0, width, height), min(_USUAL / letter, _ENLARGED), letter)
        else:
            first = self._detect(pixels)
        again = self._look_again(pixels, unread(marks, first), first)
        return np.concatenate((first, again)), np.arange(len(first) + len(again)) >= len(first)

    def crops(self, pixels: NDArray[np.uint8], quads: NDArray[np.float64]) -> list[NDArray[np.uint8]]:
        """Return the images of lines, upright; those higher than wide are rotated by a quarter turn, counter-clockwise."""
        crops: list[NDArray[np.uint8]] = self._ocr.crop_text_regions(pixels, quads.astype(np.float32))
        return crops

    def _detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        found = self._ocr.text_det(pixels).boxes
        return np.empty((0, 4, 2)) if found is None else found.astype(np.float64)

    def _in_tiles(self, pixels: NDArray[np.uint8], box: Box, scale: float, letter: float) -> NDArray[np.float64]:
        """Return the lines in a box of the page, searched in scaled tiles; `letter` is the height of a letter in pixels."""
        side = DETECTOR_SIDE / scale
        found = []
        for x0, y0, x1, y1 in tiles(box, side=side, overlap=min(_OVERLAP * letter, side / 3)):
            tile = pixels[y0:y1, x0:x1]
            if scale != 1:
                how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
                size = max(round((x1 - x0) * scale), 1), max(round((y1 - y0) * scale), 1)
                tile = cv2.resize(tile, size, interpolation=how).astype(np.uint8, copy=False)
            quads = self._detect(np.ascontiguousarray(tile))
            found.append(quads / scale + np.array([x0, y0]))
        return stitched(found)

    def _look_again(self, pixels: NDArray[np.uint8], marks: Marks, known: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the lines among marks outside of all known lines."""
        found: list[NDArray[np.float64]] = []
        boxes = [_box(quad) for quad in known]
        for patch in _worth_it(patches(marks, pixels.shape), sparse=len(known) < _FULL):
            quads = self._in_tiles(pixels, _with_margin(patch, pixels.shape), _scale(patch), patch.height)
            for quad in quads:
                if not _covered(_box(quad), boxes):
                    found.append(quad)
                    boxes.append(_box(quad))
        return np.array(found) if found else np.empty((0, 4, 2))


def _worth_it(found: list[Patch], *, sparse: bool) -> list[Patch]:
    """Return the patches that form rows, as print does, and of the others the smallest, up to the limits."""
    budget, left = (_BUDGET_SPARSE if sparse else _BUDGET_FULL), _MOST_PATCHES
    chosen = []
    for patch in sorted(found, key=lambda patch: (not patch.in_rows, patch.area)):
        if not patch.in_rows:
            cost = patch.area * _scale(patch) ** 2
            if cost > budget or not left:
                break
            budget, left = budget - cost, left - 1
        chosen.append(patch)
    return chosen


def _scale(patch: Patch) -> float:
    low, high = _READABLE
    return 1.0 if low <= patch.height <= high else min(_LETTERS / patch.height, _ENLARGED)


def _with_margin(patch: Patch, shape: tuple[int, ...]) -> Box:
    heights, pixels = _MARGIN
    margin = heights * patch.height + pixels
    x0, y0, x1, y1 = patch.box
    return (
        max(int(x0 - margin), 0),
        max(int(y0 - margin), 0),
        min(int(x1 + margin), shape[1]),
        min(int(y1 + margin), shape[0]),
    )


def _box(quad: NDArray[np.float64]) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = quad.min(axis=0).tolist(), quad.max(axis=0).tolist()
    return x0, y0, x1, y1


def _covered(box: tuple[float, float, float, float], others: list[tuple[float, float, float, float]]) -> bool:
    if not others:
        return False
    x0, y0, x1, y1 = np.array(others).T
    shared = np.maximum(np.minimum(x1, box[2]) - np.maximum(x0, box[0]), 0)
    shared = shared * np.maximum(np.minimum(y1, box[3]) - np.maximum(y0, box[1]), 0)
    return bool((shared > _COVERED * (box[2] - box[0]) * (box[3] - box[1])).any())
