"""The rendered page and its size. Part of the sandboxed program, worker/rendering/rasterise.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.pages import PageWarning

if TYPE_CHECKING:
    from mmap import mmap

    from PIL.Image import Image

    from ocrfleet.profiles.profile import Render


POINTS_PER_INCH = 72.0
#: The highest resolution for a page that gets more pixels because it is narrow, in dpi.
_FINEST_DPI = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Raster:
    """A rendered page: its size in the shared memory and its final size, in pixels, and the page as displayed."""

    stored_width: int
    stored_height: int
    #: 1 for grey, 3 for RGB
    channels: int
    width: int
    height: int
    #: of the page as displayed, in points
    width_pt: float
    height_pt: float
    #: degrees, clockwise, by which a PDF page was rotated for display: 0, 90, 180 or 270
    rotation: int = 0
    #: defects of the file with which the page could still be drawn
    warnings: tuple[PageWarning, ...] = ()
    #: share of an image of the page that is missing in the file, 0 to 1
    missing: float = 0.0

    @property
    def size(self) -> int:
        """Bytes in the memory."""
        return self.stored_width * self.stored_height * self.channels


def handed_over(image: Image, size: tuple[int, int], width_pt: float, height_pt: float, into: mmap) -> Raster:
    """Write a grey or RGB image to the shared memory. The parent scales it to its final size."""
    pixels = image.tobytes()
    into[: len(pixels)] = pixels
    return Raster(
        stored_width=image.width,
        stored_height=image.height,
        channels=len(image.mode),
        width=size[0],
        height=size[1],
        width_pt=width_pt,
        height_pt=height_pt,
    )


def is_flat(memory: mmap, raster: Raster) -> bool:
    """Say whether all pixels have one colour."""
    row = raster.stored_width * raster.channels
    first = memory[: raster.channels] * raster.stored_width
    return all(memory[at : at + row] == first for at in range(0, raster.size, row))


def fit(width: float, height: float, render: Render, *, enlarge: bool, dpi: float = POINTS_PER_INCH) -> tuple[int, int]:
    """Return the size in pixels at which to render a page of `width` x `height`, in the same proportion.

    An inch of the page is `dpi` units of its width and height: a PDF's are points, an image's pixels. Raises PermanentError
    for a page without extent.
    """
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise PermanentError(Reason.UNREADABLE, "the page has no size: its page box is damaged; export it again")
    scale = render.long_side / max(width, height)
    if render.short_side is not None:
        finest = _FINEST_DPI / dpi if enlarge else 1.0
        scale = max(scale, min(render.short_side / min(width, height), finest))
    if render.min_dpi is not None:
        scale = max(scale, render.min_dpi / dpi)
    if not enlarge:
        scale = min(scale, 1.0)
    if render.min_side is not None:
        scale = max(scale, render.min_side / min(width, height))
    # A strip a thousand times longer than wide must stay below the limit when its width is rounded up to 1.
    scale = min(scale, math.sqrt(render.max_pixels / (width * height)), render.max_pixels / max(width, height))
    if round(width * scale) * round(height * scale) > render.max_pixels:
        return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    return max(1, round(width * scale)), max(1, round(height * scale))


def enhances(render: Render) -> bool:
    return render.contrast or render.sharpen > 0


def enhance(image: Image, render: Render) -> Image:
    """Apply the profile's preprocessing."""
    from PIL import ImageFilter, ImageOps  # noqa: PLC0415 - native code: under the limits

    if render.contrast:
        image = ImageOps.autocontrast(image)
    if render.sharpen:
        image = image.filter(ImageFilter.UnsharpMask(percent=render.sharpen))
    return image
