"""Decode a page that is an image file: upright, on white, no larger than needed. Part of worker/rendering/rasterise.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.pages import PageWarning, WarningCode
from ocrfleet.sandbox.pdf_images import NoiseError
from worker.rendering.jpeg_pages import nearly
from worker.rendering.raster import POINTS_PER_INCH, Raster, enhance, enhances, fit, handed_over, is_flat
from worker.rendering.transparency import on_paper

if TYPE_CHECKING:
    from mmap import mmap

    from PIL.Image import Image
    from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

    from ocrfleet.profiles.profile import Render
    from ocrfleet.sandbox.image_files import ImageDocument

#: Plausible resolutions in dpi; others are errors of the program that wrote the tag.
SANE_DPI = (50.0, 2400.0)
#: The largest ratio of a pixel's sides: a fax has 204 x 98 dpi, a larger one is an error.
LONGEST_PIXEL = 2.2
#: The usual resolution of archives in dpi, for a file without one.
ASSUMED_DPI = 300.0

#: EXIF's orientation tag, and its values with the first row at the left or right.
_ORIENTATION = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})
#: Pillow's transposition for each orientation.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
#: For grey of more than 8 bits: the fewest levels of 255 between ink and paper; a level counts from this share of the pixels on.
_PLAIN, _COUNTS = 32, 1e-5


def draw_image(document: ImageDocument, index: int, render: Render, into: mmap) -> Raster:
    """Decode image `index` into the memory, upright and on white, downscaled as asked. Raises PermanentError.

    Its size in points comes from its resolution tag, if that is sane, or from ASSUMED_DPI.
    """
    warnings = document.left_out if index == 0 else ()
    try:
        raster = _drawn(document, index, document.frame(index), render, into)
    except PermanentError as error:
        if error.reason is not Reason.UNREADABLE:
            raise
        raster = _draw_damaged(document, index, render, into, error)
    if document.is_noise():
        raise NoiseError
    return replace(raster, warnings=(*warnings, *raster.warnings))


def _draw_damaged(document: ImageDocument, index: int, render: Render, into: mmap, trouble: PermanentError) -> Raster:
    """Decode an image that Pillow refuses: its intact part, or with another decoder. Raises `trouble` again if both fail."""
    try:
        with document.tolerate_truncation():
            raster = _drawn(document, index, document.frame(index), render, into)
    except PermanentError:
        pass
    else:
        with document.errors():
            missing = document.missing(index)
        # The part that can't be decoded has one colour.
        if missing < 1.0 and (document.measures_missing or not is_flat(into, raster)):
            return replace(raster, missing=missing, warnings=(*raster.warnings, _what_is_wrong(missing)))
    try:
        image, warnings = document.decode_with_other_library(index)
    except PermanentError as error:
        raise (error if error.reason is Reason.UNSUPPORTED else trouble) from error
    raster = _drawn(document, index, image, render, into)
    with document.errors():
        missing = document.missing(index)
    if missing:
        warnings = (*warnings, _what_is_wrong(missing))
    return replace(raster, missing=missing, warnings=(*raster.warnings, *warnings))


def _what_is_wrong(missing: float) -> PageWarning:
    if missing > 0:
        detail = f"{missing:.0%} of the image is missing: its file ends too early"
        return PageWarning(code=WarningCode.IMAGE_INCOMPLETE, detail=detail)
    detail = "the file is damaged or lacks its end; all of the image is there"
    return PageWarning(code=WarningCode.DATA_DAMAGED, detail=detail)


def _drawn(document: ImageDocument, index: int, image: Image, render: Render, into: mmap) -> Raster:
    import PIL.Image  # noqa: PLC0415 - native code: under the limits

    with document.errors(image.width * image.height):
        dpi_x, dpi_y = _dpi(image)
        width_pt, height_pt = image.width / dpi_x * POINTS_PER_INCH, image.height / dpi_y * POINTS_PER_INCH
        # A fax has half as many dots down as across: square pixels first, at the finer of both.
        finer = max(dpi_x, dpi_y)
        size = fit(image.width * finer / dpi_x, image.height * finer / dpi_y, render, enlarge=False, dpi=finer)
        deep, negative = _is_deep(image), document.is_negative(image)
        image = document.own_decoding(image) or _decode(document, index, image, size)
        orientation = _orientation(image)
        image, warnings = on_paper(_continuous(image))
        if deep:
            image = _plain(image)
        if negative:
            image = image.point([255 - level for level in range(256)])
        upright = orientation not in _TURNS and not enhances(render)
        shrunk = nearly(image, size, len(into)) if upright else None
        if shrunk is None:
            # Down by whole numbers first (BOX), then the rest by a short filter: 11 ms for a bilevel A4 page instead of 41.
            shrinks = size[0] <= image.width
            smooth = PIL.Image.Resampling.HAMMING if shrinks else PIL.Image.Resampling.LANCZOS
            image = image.resize(size, smooth, reducing_gap=1.0)
            image = enhance(_upright(image, orientation), render)
            size = image.size
        else:
            image = shrunk
    if orientation in _SIDEWAYS:
        width_pt, height_pt = height_pt, width_pt
    return replace(handed_over(image, size, width_pt, height_pt, into), warnings=warnings)


def _dpi(image: Image) -> tuple[float, float]:
    """Return dots per inch across and down, of the image as Pillow shows it."""
    low, high = SANE_DPI
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return ASSUMED_DPI, ASSUMED_DPI
    if not (low <= across <= high and low <= down <= high):
        return ASSUMED_DPI, ASSUMED_DPI
    if max(across, down) > LONGEST_PIXEL * min(across, down):
        return max(across, down), max(across, down)
    # Pillow swaps the sides of a rotated TIFF, but its resolution is that of the picture as stored.
    turned = image.format == "TIFF" and _stored_orientation(image) in _SIDEWAYS
    return (down, across) if turned else (across, down)


def _stored_orientation(image: Any) -> int:
    try:
        return int(image.tag_v2.get(_ORIENTATION, 1))
    except (AttributeError, TypeError, ValueError):
        return 1


def _decode(document: ImageDocument, index: int, image: Image, size: tuple[int, int]) -> Image:
    """Decode the pixels, at a fraction of their number where the format can, but at no fewer than `size`."""
    fraction = min(image.width // size[0], image.height // size[1])
    if image.format == "JPEG2000" and fraction > 1:
        levels = fraction.bit_length() - 1
        try:
            cast("Jpeg2KImageFile", image).reduce = levels
            image.load()
        except OSError:
            # The file has fewer levels than that; a damaged one fails again.
            image = document.frame(index)
    else:
        image.draft(None, size)  # JPEG; nothing in other formats
    image.load()
    return image


def _orientation(image: Image) -> int:
    """Return the EXIF orientation that must still be applied (Pillow applies a TIFF's)."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - the tags are damaged, but the picture is not
        return 1


def _continuous(image: Image) -> Image:
    """Return the image as L, LA, RGB or RGBA, which can be scaled."""
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _eight_bits(image)
    # A single transparent colour is kept: it may be that of the letters.
    if mode in ("PA", "RGBa") or (mode == "P" and "transparency" in image.info):
        return image.convert("RGBA")
    if mode == "La":
        return image.convert("LA")
    if mode == "LAB":
        return image.getchannel("L")
    if mode == "1":
        return image.convert("L")
    return image if mode in ("L", "LA", "RGB", "RGBA") else image.convert("RGB")


def _is_deep(image: Any) -> bool:
    """Say whether Pillow reduces sixteen bits to eight: little contrast would be lost."""
    return image.mode in ("L", "LA", "RGB", "RGBA") and any(
        ";16" in str(tile[3]) for tile in getattr(image, "tile", ())
    )


def _plain(image: Image) -> Image:
    """Return the image with enough contrast between ink and paper."""
    spans = [_span(image.getchannel(band)) for band in image.getbands()]
    darkest, lightest = min(low for low, _ in spans), max(high for _, high in spans)
    if lightest - darkest >= _PLAIN or darkest == lightest:
        return image
    scale = 255 / (lightest - darkest)
    levels = [round(min(max((level - darkest) * scale, 0), 255)) for level in range(256)]
    return image.point(levels * len(spans))


def _eight_bits(image: Image) -> Image:
    """Scale grey of more than 8 bits to 8 bits by the depth of its brightest pixel: 12 bits are often stored in 16.

    If that leaves too little contrast, the range between ink and paper becomes the whole scale.
    """
    if image.mode.startswith("I;16"):
        image = image.convert("I")  # big-endian pixels have no extrema
    low, high = cast("tuple[float, float]", image.getextrema())
    if image.mode == "F":
        # Floating-point pixels have no defined white.
        return _scaled(image, low, high)
    if low < 0:
        return _scaled(image, low, high)
    level = (1 << max(8, int(high).bit_length())) / 256
    grey = image.point(lambda value: value * (1 / level)).convert("L")
    darkest, lightest = _span(grey)
    if lightest - darkest >= _PLAIN or low == high:
        return grey
    # The whole range of the darkest and of the lightest level, because the values within them are not known.
    return _scaled(image, max(low, darkest * level), min(high, (lightest + 1) * level))


def _scaled(image: Image, low: float, high: float) -> Image:
    scale = 255.0 / (high - low) if low < high else 1.0
    return image.point(lambda value: value * scale - low * scale).convert("L")


def _span(image: Image) -> tuple[int, int]:
    """Return the darkest and the lightest level that more than a speck of a grey image has."""
    counts = image.histogram()
    fewest = _COUNTS * sum(counts)
    levels = [level for level, count in enumerate(counts) if count > fewest]
    return levels[0], levels[-1]


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose  # noqa: PLC0415 - as above

    return image.transpose(Transpose[_TURNS[orientation]]) if orientation in _TURNS else image
