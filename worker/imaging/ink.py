"""Measures how much of a page image is ink, and where."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from worker.imaging.page_image import PageImage

#: Side of the squares, in pixels, whose means are compared: it averages a scanner's noise and keeps a pen's stroke.
SQUARE = 4
#: A square has ink when its grey differs from the paper's by this many times the page's own noise …
_NOISES = 6.0
#: … but by at least and at most so much, of 255: flat paper has hardly any noise, uneven light has too much.
_FAINTEST, _PLAINEST = 6.0, 24.0
#: A page with fewer inked squares is blank: one letter of 8 points covers 3 to 9 at 150 dpi.
_MINIMUM = 3


def is_blank(image: PageImage) -> bool:
    """Say whether the page is blank. In doubt it is not: the engine reads pages with uneven light, shadows or dust."""
    height, width = _whole(image)
    return bool(height and width) and not any(count >= _MINIMUM for _, _, count in _channels(image))


def squares(image: PageImage, *, enough: float = math.inf) -> int:
    """Return how many of the page's squares have ink, in the colour channel with the most ink.

    Stops at the first channel with at least `enough`. The measure is that of `is_blank`: a page smaller than a square has none.
    """
    most = 0
    for _, _, count in _channels(image) if all(_whole(image)) else ():
        most = max(most, count)
        if most >= enough:
            break
    return most


def share(image: PageImage) -> float:
    """Return the share of the page's squares that have ink, 0..1."""
    height, width = _whole(image)
    return squares(image) / max(1, height * width)


def inked(image: PageImage) -> NDArray[np.bool_]:
    """Return which squares have ink, shape (height // 4, width // 4), in the colour channel with the most ink.

    Pixels below or to the right of the last whole square are left out.
    """
    shape = _whole(image)
    if not all(shape):
        return np.zeros(shape, np.bool_)
    sums, has_ink, _ = max(_channels(image), key=lambda channel: channel[2])
    return has_ink[sums].reshape(shape)


def _whole(image: PageImage) -> tuple[int, int]:
    """Return how many whole squares there are down and across."""
    return image.height // SQUARE, image.width // SQUARE


def _channels(image: PageImage) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.bool_], int]]:
    """Yield the squares' sums, whether each sum is ink, and how many squares have it.

    First of green, then of red and of blue where they are not all as in the one before.
    """
    height, width = _whole(image)
    before: NDArray[np.uint16] | None = None
    # Green first, because it is closest to brightness: it suffices for most pages. It does not show red on black, or cyan ink.
    for channel in (1, 0, 2):
        sums = _sums(image.pixels[: height * SQUARE, : width * SQUARE, channel])
        if before is None or not np.array_equal(sums, before):
            yield sums, *_ink_of(sums)
        before = sums


def _sums(channel: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the sum of each square's pixels, at most 4080, row after row."""
    # Four adjacent pixels are one number, whose bytes are added in pairs, so that no byte overflows into the next.
    fours = np.ascontiguousarray(channel).view(np.uint32)
    low = np.uint32(0x00FF00FF)
    pairs = (fours & low) + (fours >> np.uint32(8) & low)
    rows = pairs.reshape(-1, SQUARE, pairs.shape[1])
    squares = rows[:, 0] + rows[:, 1] + rows[:, 2] + rows[:, 3]
    return ((squares & np.uint32(0xFFFF)) + (squares >> np.uint32(16))).astype(np.uint16).ravel()


def _ink_of(sums: NDArray[np.uint16]) -> tuple[NDArray[np.bool_], int]:
    """Return whether a sum is ink, for each sum up to the largest, and how many of the squares have ink."""
    # There are few different sums, so each is examined once.
    counts = np.bincount(sums)
    greys = np.arange(len(counts), dtype=np.float32) / np.float32(SQUARE * SQUARE)
    distance = np.abs(greys - np.float32(_median(greys, counts)))
    # The standard deviation of a normal distribution with this median absolute deviation.
    noise = 1.4826 * _median(distance, counts)
    has_ink: NDArray[np.bool_] = distance > min(max(_NOISES * noise, _FAINTEST), _PLAINEST)
    return has_ink, int(counts[has_ink].sum())


def _median(values: NDArray[np.float32], counts: NDArray[np.intp]) -> float:
    """Return the median of values with these frequencies."""
    order = np.argsort(values)
    upto = np.cumsum(counts[order])
    total = int(upto[-1])
    lower, upper = np.searchsorted(upto, ((total - 1) // 2, total // 2), side="right")
    return (float(values[order[lower]]) + float(values[order[upper]])) / 2
