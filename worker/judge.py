"""Judging pages: what is on the image, before and after an engine saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from worker.engines.base import PageImage

#: Side of the squares, in pixels, whose means are compared: averages a scanner's noise away and keeps a pen's stroke.
_CELL = 4
#: A square has ink when its grey differs from the paper's by this much, of 255.
_CONTRAST = 24
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
    inked = np.abs(cells - np.median(cells)) > _CONTRAST
    return int(np.count_nonzero(inked)) >= _MINIMUM
