"""Judging pages: what is on the image, before an engine sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from worker.engines.base import PageImage

#: Side of the squares, in pixels, whose means are compared: averages a scanner's noise away and keeps a pen's stroke.
_CELL = 4
#: A square has ink when its grey differs from the paper's by this many times the page's own noise …
_NOISES = 6.0
#: … but by at least and at most so much, of 255: flat paper has hardly any noise, uneven light has too much.
_FAINTEST, _PLAINEST = 6.0, 24.0
#: A page with fewer inked squares is blank: one letter of 8 points covers 3 to 9 at 150 dpi.
_MINIMUM = 3


def is_blank(image: PageImage) -> bool:
    """Say whether nothing is on the page. In doubt it is not: uneven light, a shadow or dust go to the engine."""
    height, width = _whole(image)
    return bool(height and width) and not any(inked >= _MINIMUM for inked in _inked(image))


def ink(image: PageImage) -> float:
    """Return the share of the page's squares that have ink, 0..1, in the colour that shows the most of it.

    The measure is that of `is_blank`. A page smaller than a square has none.
    """
    height, width = _whole(image)
    return max(_inked(image)) / (height * width) if height and width else 0.0


def _whole(image: PageImage) -> tuple[int, int]:
    """Return how many whole squares there are down and across."""
    return image.height // _CELL, image.width // _CELL


def _inked(image: PageImage) -> Iterator[int]:
    """Yield how many squares have ink: in green, then in red and in blue where they are not all as in the one before."""
    height, width = _whole(image)
    before: NDArray[np.uint16] | None = None
    # Green first, as it is closest to brightness: most pages need no other. But red on black is not in it, nor cyan ink.
    for channel in (1, 0, 2):
        sums = _sums(image.pixels[: height * _CELL, : width * _CELL, channel])
        if before is None or not np.array_equal(sums, before):
            yield _count(sums)
        before = sums


def _sums(channel: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the sum of each square's pixels, at most 4080, row after row."""
    # Four pixels beside each other are one number, whose bytes are added by twos: no byte runs over into the next.
    fours = np.ascontiguousarray(channel).view(np.uint32)
    low = np.uint32(0x00FF00FF)
    pairs = (fours & low) + (fours >> np.uint32(8) & low)
    rows = pairs.reshape(-1, _CELL, pairs.shape[1])
    squares = rows[:, 0] + rows[:, 1] + rows[:, 2] + rows[:, 3]
    return ((squares & np.uint32(0xFFFF)) + (squares >> np.uint32(16))).astype(np.uint16).ravel()


def _count(sums: NDArray[np.uint16]) -> int:
    """Return how many of the squares have ink."""
    # There are few different sums: counted once, each is looked at once.
    counts = np.bincount(sums)
    greys = np.arange(len(counts), dtype=np.float32) / np.float32(_CELL * _CELL)
    distance = np.abs(greys - np.float32(_median(greys, counts)))
    # The standard deviation, were it normal (median absolute deviation).
    noise = 1.4826 * _median(distance, counts)
    inked = distance > min(max(_NOISES * noise, _FAINTEST), _PLAINEST)
    return int(counts[inked].sum())


def _median(values: NDArray[np.float32], counts: NDArray[np.intp]) -> float:
    """Return the median of values that come so many times each."""
    order = np.argsort(values)
    upto = np.cumsum(counts[order])
    total = int(upto[-1])
    lower, upper = np.searchsorted(upto, ((total - 1) // 2, total // 2), side="right")
    return (float(values[order[lower]]) + float(values[order[upper]])) / 2
