"""Pages that were scanned lying on their side or on their head: read the turned image, and turn the boxes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ocrfleet.records.pages import Line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker.engines.layout.geometry import Box

#: A box this many times higher than wide is a line that runs up or down, or a column of Japanese.
_TALL = 2.0
#: Confidence below which a page may stand on its head, and that a turned reading must have. Of ten pages of the corpus,
#: upright handwriting has 0.82, black letter 0.92, modern print 0.99; upside down, they have 0.45 to 0.72.
_SURE = 0.8

#: A turned reading that scores this much of the given one's score is better: an engine that turns tall boxes by itself
#: reads their words as well, and in the wrong order.
_AS_GOOD = 0.95


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of an image in one position, in no order."""

    lines: list[Line]
    #: 0..1: the mean of all that was found, kept or not, by its length
    confidence: float
    #: the skew in that position, in degrees, positive when lines sink to the right
    angle: float = 0.0

    @property
    def score(self) -> float:
        """Characters, weighted by confidence: more text that is surer is better."""
        return sum(len(line.text) * (line.confidence or 0.0) for line in self.lines)


def read_upright(
    pixels: NDArray[np.uint8], read: Callable[[NDArray[np.uint8]], tuple[Reading, NDArray[np.float64]]]
) -> tuple[Reading, int]:
    """Read an image, and where lines run up or down or nothing much was read, turned as well; return the best reading.

    `read` returns a reading and the sizes (width, height) of the boxes that it found, shape (n, 2). Beside the reading
    stands by how many quarters the image was turned for it, counter-clockwise; its boxes are of the turned image. An upright
    page costs nothing.
    """
    given, sizes = read(pixels)
    turns: tuple[int, ...] = ()
    if _mostly_tall(sizes):
        turns = (1, 3)
    elif given.confidence < _SURE:
        turns = (2,)
    readings = [(read(np.ascontiguousarray(np.rot90(pixels, quarter)))[0], quarter) for quarter in turns]
    turned, quarter = max(readings, key=lambda reading: reading[0].score, default=(given, 0))
    if not quarter or turned.confidence < _SURE or turned.score < _AS_GOOD * given.score:
        return given, 0
    return turned, quarter


def _mostly_tall(sizes: NDArray[np.float64]) -> bool:
    """Say whether most of the text, by the length of its boxes, runs up or down."""
    if not len(sizes):
        return False
    tall = sizes[:, 1] > _TALL * sizes[:, 0]
    length = sizes.max(axis=1)
    return bool(length[tall].sum() > length.sum() / 2)


def back(box: Box, quarter: int, *, width: int, height: int) -> Box:
    """Return a box of a turned image where it was before; `width` and `height` are of the image as it was given."""
    x0, y0, x1, y1 = box
    moved = {
        0: box,
        1: (width - y1, x0, width - y0, x1),
        2: (width - x1, height - y1, width - x0, height - y0),
        3: (y0, height - x1, y1, height - x0),
    }[quarter]
    left, top, right, bottom = (round(value, 1) for value in moved)
    return left, top, right, bottom
