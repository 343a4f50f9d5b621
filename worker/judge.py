"""Judging pages: what is on the image, before an engine sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
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
    height = image.height - image.height % _CELL
    width = image.width - image.width % _CELL
    if not height or not width:
        return False
    # Green first, as it is closest to brightness: most pages need no other. But red on black is not in it, nor cyan ink.
    return not any(_has_ink(image.pixels[:height, :width, channel]) for channel in (1, 0, 2))


def _has_ink(channel: NDArray[np.uint8]) -> bool:
    height, width = channel.shape
    cells = channel.reshape(height // _CELL, _CELL, width // _CELL, _CELL).mean(axis=(1, 3), dtype=np.float32)
    distance = np.abs(cells - np.median(cells))
    noise = 1.4826 * float(np.median(distance))  # the standard deviation, were it normal (median absolute deviation)
    inked = distance > min(max(_NOISES * noise, _FAINTEST), _PLAINEST)
    return int(np.count_nonzero(inked)) >= _MINIMUM
