"""Measures how well a text layer matches the ink of its page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from worker.imaging import ink

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker.imaging.page_image import PageImage
    from worker.text_layer.words import Box, TextLayerWords

# Sizes below are in heights of a word's box, the layer's median: the box is as high as the font, a small letter half as high.

#: Higher ink is no print: a picture, a frame, a curve.
_PRINT_HEIGHT = 2.0
#: Ink lower than the one and wider than the other is a rule.
_RULE_HEIGHT, _RULE_WIDTH = 0.3, 3.0
#: If pictures cover more than this share of a page, it is a scan: all its ink should be text.
_SCAN = 0.5
#: The largest areas of all words' boxes and of all lines', in pages: more can't be measured one by one in bounded time. A page
#: full of small print has 0.5 of both.
_MOST_AREA = 4.0
#: The same for pictures: with more, the page counts as a scan that was cut into strips.
_MOST_PICTURES = 20.0
#: The strip of a line with most of its ink, as shares of its box: from above the small letters to the baseline.
_STRIP = 0.25, 0.75
#: A word of at least so many letters and digits, with at least so many pixels in the middle of its box, is invisible if all of
#: these but a speck are within this distance of one level, of 255.
_FEWEST_LETTERS, _FEWEST_PIXELS, _SPECKS, _ONE_COLOUR = 2, 12, 0.02, 24
#: Letters, or a word, in a picture: their height, their width in heights, the deviation from the others' height as a share of it,
#: and the share of the picture's ink in such pieces.
_LOWEST, _HIGHEST, _WIDEST, _ALIKE, _MOSTLY = 0.4, 6.0, 40.0, 0.4, 0.5
#: The width that should be white beside a word that is alone on its line: about that of a space.
_BESIDE = 0.25


@dataclass(frozen=True, slots=True)
class Alignment:
    """Measures of how the words of a layer match a page's ink."""

    #: words that have ink under them, by their width, 0..1
    on_ink: float
    #: print-like ink that has words over it, 0..1
    covered: float
    #: darkness between words relative to that of words: near 0 for white gaps, about 1 for words in arbitrary places
    gaps: float
    #: area of all words relative to the area that they cover together: 1, or 2 if each word is there twice
    piled: float
    #: pictures cover most of the page
    scan: bool
    #: words hidden by an area of one colour that isn't the paper's, such as a black box
    covered_words: int
    #: letters that the ink in pictures may be, where the layer has no words
    letters_in_pictures: int


def crowded(layer: TextLayerWords) -> bool:
    """Say whether so many words overlap that `overlay` would take too long."""
    boxes = np.array([word.box for word in layer.words], dtype=np.float64).reshape(-1, 4)
    lines = np.array([line for line, _, _ in _lines(layer, boxes)], dtype=np.float64).reshape(-1, 4)
    return max(_area(boxes), _area(lines)) > _MOST_AREA * layer.width_pt * layer.height_pt


def overlay(layer: TextLayerWords, image: PageImage) -> Alignment:
    """Compare a layer, which has words and is not crowded, with the page image."""
    scale = np.array([image.width / layer.width_pt, image.height / layer.height_pt] * 2)
    boxes = np.array([word.box for word in layer.words], dtype=np.float64) * scale
    inked = ink.inked(image)
    squares = _squares(boxes, inked.shape)
    widths = boxes[:, 2] - boxes[:, 0]
    on_ink = float(widths[_has_ink(squares, inked)].sum() / max(float(widths.sum()), 1e-9))
    scan = _is_scan(layer.pictures, inked.shape, scale)
    over = np.zeros((image.height, image.width), dtype=np.bool_)
    for x0, y0, x1, y1 in (
        np.concatenate((np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])), axis=1).astype(np.intp).tolist()
    ):
        over[y0:y1, x0:x1] = True
    return Alignment(
        on_ink=on_ink,
        covered=_covered(squares, inked, scan=scan),
        gaps=_gaps(layer, boxes, image.pixels[:, :, 1], over),
        piled=_area(boxes) / max(int(over.sum()), 1),
        scan=scan,
        covered_words=int(_hides(layer, boxes, image.pixels[:, :, 1])[1].sum()),
        letters_in_pictures=0 if scan else _letters_in_pictures(layer.pictures, squares, inked, scale),
    )


def unseen(layer: TextLayerWords, image: PageImage) -> NDArray[np.bool_]:
    """Return which words are invisible on the page image: their boxes have a single colour."""
    scale = np.array([image.width / layer.width_pt, image.height / layer.height_pt] * 2)
    boxes = np.array([word.box for word in layer.words], dtype=np.float64).reshape(-1, 4) * scale
    return _hides(layer, boxes, image.pixels[:, :, 1])[0]


def _hides(
    layer: TextLayerWords, boxes: NDArray[np.float64], grey: NDArray[np.uint8]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which words have boxes of a single colour, and which of these another colour than the paper."""
    paper = float(np.median(grey[::8, ::8]))
    flat, covered = np.zeros(len(boxes), np.bool_), np.zeros(len(boxes), np.bool_)
    for number, (word, (x0, y0, x1, y1)) in enumerate(zip(layer.words, boxes.tolist(), strict=True)):
        if sum(map(str.isalnum, word.text)) < _FEWEST_LETTERS:
            continue
        across, down = (x1 - x0) / 4, (y1 - y0) / 4
        middle = grey[round(y0 + down) : round(y1 - down) + 1, round(x0 + across) : round(x1 - across) + 1]
        if middle.size < _FEWEST_PIXELS:
            continue
        level = float(np.median(middle))
        flat[number] = np.count_nonzero(np.abs(middle - level) > _ONE_COLOUR) <= _SPECKS * middle.size
        covered[number] = flat[number] and abs(level - paper) > _ONE_COLOUR
    return flat, covered


def _letters_in_pictures(
    pictures: Sequence[Box], squares: NDArray[np.intp], inked: NDArray[np.bool_], scale: NDArray[np.float64]
) -> int:
    """Return how many letters the ink in pictures outside of the layer's words may be; 0 if most of it is something else."""
    if not pictures or not inked.size:
        return 0
    there = np.zeros(inked.shape, dtype=np.bool_)
    for x0, y0, x1, y1 in _squares(np.array(pictures, dtype=np.float64) * scale, inked.shape).tolist():
        there[y0:y1, x0:x1] = True
    for x0, y0, x1, y1 in squares.tolist():
        there[y0:y1, x0:x1] = False
    ink_there = (inked & there).astype(np.uint8)
    _, _, pieces, _ = cv2.connectedComponentsWithStats(ink_there, connectivity=8)
    width, height, area = (pieces[1:, column] for column in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    unit = float(np.median(squares[:, 3] - squares[:, 1]))
    fits = (height >= _LOWEST * unit) & (height <= _HIGHEST * unit) & (width <= _WIDEST * height)
    if not fits.any():
        return 0
    alike = fits & (np.abs(height - np.median(height[fits])) <= _ALIKE * np.median(height[fits]))
    if area[alike].sum() < _MOSTLY * area.sum():
        return 0
    # Letters touch at this size: a piece counts as its ratio of width to height.
    return round(float(np.maximum(width[alike] / height[alike], 1.0).sum()))


def _area(boxes: NDArray[np.float64]) -> float:
    """Return the sum of the boxes' areas."""
    return float(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum())


def _squares(boxes: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the ink map's squares that each box touches, as x0, y0, x1, y1 with the ends excluded; at least one."""
    high = np.array([shape[1], shape[0]])
    first = np.clip(np.floor(boxes[:, :2] / ink.SQUARE), 0, np.maximum(high - 1, 0))
    last = np.clip(np.ceil(boxes[:, 2:] / ink.SQUARE), np.minimum(first + 1, high), high)
    return np.concatenate((first, last), axis=1).astype(np.intp)


def _has_ink(squares: NDArray[np.intp], inked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    sums = np.zeros((inked.shape[0] + 1, inked.shape[1] + 1), dtype=np.int64)
    sums[1:, 1:] = inked.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    x0, y0, x1, y1 = squares.T
    return cast("NDArray[np.bool_]", sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0] > 0)


def _covered(squares: NDArray[np.intp], inked: NDArray[np.bool_], *, scan: bool) -> float:
    """Return the share of print-like ink that has words over it; on a scan, of all ink."""
    over = np.zeros(inked.shape, dtype=np.bool_)
    for x0, y0, x1, y1 in squares.tolist():
        over[y0:y1, x0:x1] = True
    here = int((inked & over).sum())
    elsewhere = inked & ~over
    unit = float(np.median(squares[:, 3] - squares[:, 1]))
    missed = int(elsewhere.sum()) if scan else _print_like(elsewhere, unit=unit)
    return here / max(here + missed, 1)


def _is_scan(pictures: Sequence[Box], shape: tuple[int, ...], scale: NDArray[np.float64]) -> bool:
    if not pictures or not all(shape):
        return False
    boxes = np.array(pictures, dtype=np.float64) * scale
    if _area(boxes) > _MOST_PICTURES * shape[0] * shape[1] * ink.SQUARE**2:
        return True
    painted = np.zeros(shape, dtype=np.bool_)
    for x0, y0, x1, y1 in _squares(boxes, shape).tolist():
        painted[y0:y1, x0:x1] = True
    return bool(painted.mean() > _SCAN)


def _print_like(inked: NDArray[np.bool_], *, unit: float) -> int:
    """Return how many squares of ink are in pieces that may be letters and words; `unit` is a word's height in squares."""
    if not inked.size:
        return 0
    _, _, pieces, _ = cv2.connectedComponentsWithStats(inked.astype(np.uint8), connectivity=8)
    width, height, area = (pieces[1:, column] for column in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    rule = (height <= max(1.0, _RULE_HEIGHT * unit)) & (width > _RULE_WIDTH * unit)
    return int(area[(height <= _PRINT_HEIGHT * unit) & ~rule].sum())


def _gaps(layer: TextLayerWords, boxes: NDArray[np.float64], grey: NDArray[np.uint8], over: NDArray[np.bool_]) -> float:
    """Return the darkness between the words of a line, or beside a single one, relative to that of the words.

    `over` marks the pixels of `grey` that are in words. The layer of another page, or a displaced one, may cover as much ink,
    but its words end in other places.
    """
    dark, wide = np.zeros(2), np.zeros(2)  # in gaps, in words: sums over lines of pixels across the text
    for line, sideways, parted in _lines(layer, boxes):
        # Text that runs up or down is measured as if the page were mirrored: gaps stay in place.
        looked_at = (grey.T, over.T) if sideways else (grey, over)
        box = line[[1, 0, 3, 2]] if sideways else line
        where = _strip(box, beside=0.0 if parted else _BESIDE)
        strip, words = (part[where] for part in looked_at)
        if not strip.size:
            continue
        darkness = np.abs(strip.astype(np.float32) - np.median(strip)).mean(axis=0)
        in_word = words.any(axis=0)
        for kind in (False, True):
            dark[int(kind)] += darkness[in_word == kind].sum()
            wide[int(kind)] += (in_word == kind).sum()
    if not wide.all():
        return 1.0
    in_gaps, in_words = dark / wide
    return float(in_gaps / in_words) if in_words else 1.0


def _strip(line: NDArray[np.float64], *, beside: float) -> tuple[slice, slice]:
    """Return the part of the page image with most of a line's ink, and `beside` times its height to the left and right."""
    x0, y0, x1, y1 = line.tolist()
    height = y1 - y0
    first, last = (round(y0 + height * part) for part in _STRIP)
    return slice(first, last + 1), slice(max(0, round(x0 - beside * height)), round(x1 + beside * height) + 1)


def _lines(layer: TextLayerWords, boxes: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.float64], bool, bool]]:
    """Yield the box of each line, whether it runs up or down, and whether it has several words."""
    for _, group in groupby(range(len(boxes)), key=lambda index: (layer.words[index].block, layer.words[index].line)):
        members = list(group)
        words = boxes[members]
        line = np.concatenate((words[:, :2].min(axis=0), words[:, 2:].max(axis=0)))
        letters = sum(len(layer.words[index].text) for index in members)
        yield line, letters > 1 and bool(line[3] - line[1] > line[2] - line[0]), len(members) > 1
