"""A page as pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ocrfleet.records.pages import PageWarning


@dataclass(frozen=True, kw_only=True, slots=True)
class PageImage:
    """The page image for the engine: upright, on white, RGB."""

    #: uint8, shape (height, width, 3), C-contiguous
    pixels: NDArray[np.uint8]
    #: the page as displayed, in points (1/72 inch)
    width_pt: float
    height_pt: float
    #: degrees, clockwise, by which the PDF page was rotated for display
    rotation: int = 0
    #: defects of the file with which the page could still be drawn
    warnings: tuple[PageWarning, ...] = ()
    #: share of an image of the page that is missing in its file, 0 to 1
    missing: float = 0.0

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])
