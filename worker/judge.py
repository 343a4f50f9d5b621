"""Judging pages: what is on the image, before and after an engine saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from worker.engines.base import PageImage

#: Side of the squares, in pixels, whose means are compared: averages a scanner's noise away and keeps a pen's stroke.
_CELL = 4
#: A square has ink when its grey differs from the paper's by this much, of 255.
_CONTRAST = 24
#: A page with fewer inked squares is blank: one letter of 8 points covers about ten at 150 dpi.
_MINIMUM = 6


def is_blank(image: PageImage) -> bool:
    """Say whether nothing is on the page. In doubt it is not: uneven light, a shadow or dust go to the engine."""
    height = image.height - image.height % _CELL
    width = image.width - image.width % _CELL
    if not height or not width:
        return False
    green = image.pixels[:height, :width, 1]  # closest to brightness of the three, and no copy
    cells = green.reshape(height // _CELL, _CELL, width // _CELL, _CELL).mean(axis=(1, 3), dtype=np.float32)
    inked = np.abs(cells - np.median(cells)) > _CONTRAST
    return int(np.count_nonzero(inked)) < _MINIMUM
