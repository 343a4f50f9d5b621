"""Examines the images of a PDF page after an error of a decoder: how much of each is missing, and which are only noise."""

from __future__ import annotations

import io
import re
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.pages import PageWarning, WarningCode
from ocrfleet.sandbox.completeness import (
    ended_jpeg2000,
    missing_of_jpeg,
    missing_of_jpeg2000,
    short,
    went_through_text_transfer,
)
from ocrfleet.sandbox.pdf import mupdf

if TYPE_CHECKING:
    from collections.abc import Iterator

#: An image with a smaller share of the pixels of all images of a page is an ornament.
_SMALLEST = 0.1
#: The most images of a page that are examined.
_MOST_IMAGES = 50
_SPACES = {1: "/DeviceGray", 3: "/DeviceRGB", 4: "/DeviceCMYK"}
_ENDED = PageWarning(code=WarningCode.DATA_ENDED_EARLY, detail="a JPEG 2000 lacks its end: it was drawn without")
_OTHER_SPACE = PageWarning(
    code=WarningCode.COLOUR_SPACE_WRONG,
    detail="the colour space of an image can't be read: it was drawn in a plain one",
)
#: CCITT's end of a facsimile block (T.6), beginning at any bit of a byte.
_END_OF_FAX = "000000000001" * 2


class NoiseError(PermanentError):
    """The data of an image is damaged so that it decodes to noise, in every decoder."""

    def __init__(self) -> None:
        super().__init__(
            Reason.UNREADABLE,
            "the image went through a text transfer, which changed its bytes: copy the file again in binary mode",
        )


def incomplete_images(page: Any) -> tuple[float, tuple[PageWarning, ...]]:
    """Return the largest missing share of an image of the page, 0 to 1, and a warning for each incomplete image.

    An image whose data ends with its end marker is complete, although it may have fewer rows than it claims.
    """
    worst, warnings = 0.0, []
    for xref, width, height in _large(page):
        missing, ended = _missing(page.parent, xref, height)
        if missing <= 0:
            continue
        rows = round(missing * height)
        detail = f"{missing:.0%} of an image of {width} x {height} pixels is missing: its last {rows} rows"
        warnings.append(PageWarning(code=WarningCode.IMAGE_INCOMPLETE, detail=detail))
        worst = max(worst, 0.0 if ended else missing)
    return worst, tuple(dict.fromkeys(warnings))


def refuse_noise(page: Any) -> None:
    """Raise NoiseError if a JPEG of the page was damaged by a text transfer: it renders as noise."""
    for xref, _, _ in _large(page):
        if _filters(page.parent, xref) == ["DCTDecode"] and went_through_text_transfer(
            page.parent.xref_stream_raw(xref)
        ):
            raise NoiseError


def replace_spaces(page: Any) -> tuple[PageWarning, ...]:
    """Give images of a page that MuPDF can't load a plain colour space, in memory; return a warning if there were any."""
    replaced = False
    pdf = page.parent
    for xref, width, height in _large(page):
        with suppress(Exception):
            filters = _filters(pdf, xref)
            if filters == ["JPXDecode"] or _is_loaded(pdf, xref):
                continue
            space = _space(pdf, xref, filters, width * height)
            if space is not None:
                pdf.xref_set_key(xref, "ColorSpace", space)
                replaced = True
    return (_OTHER_SPACE,) if replaced else ()


def end_images(page: Any) -> tuple[PageWarning, ...]:
    """Complete truncated JPEG 2000 images of a page in memory; return a warning if there were any.

    MuPDF renders nothing of them otherwise.
    """
    ended = False
    pdf = page.parent
    for xref, _, _ in _large(page):
        if _filters(pdf, xref) == ["JPXDecode"] and (data := ended_jpeg2000(pdf.xref_stream_raw(xref))) is not None:
            pdf.update_stream(xref, data, compress=False)
            pdf.xref_set_key(xref, "Filter", "/JPXDecode")
            ended = True
    return (_ENDED,) if ended else ()


def _is_loaded(pdf: Any, xref: int) -> bool:
    try:
        mupdf().Pixmap(pdf, xref)
    except Exception:  # noqa: BLE001 - MuPDF's errors are of many types
        return False
    return True


def _space(pdf: Any, xref: int, filters: list[str], pixels: int) -> str | None:
    """Return the colour space that fits an image's data, because its own can't be read; None if none fits."""
    if filters == ["DCTDecode"]:
        import PIL.Image  # noqa: PLC0415 - native code: under the limits

        return _SPACES.get(len(PIL.Image.open(io.BytesIO(pdf.xref_stream_raw(xref)), formats=["JPEG"]).getbands()))
    bits = int(pdf.xref_get_key(xref, "BitsPerComponent")[1])
    return _SPACES.get(round(len(pdf.xref_stream(xref)) * 8 / (pixels * bits)))


def _large(page: Any) -> Iterator[tuple[int, int, int]]:
    """Yield number, width and height of the images with a large share of the page's pixels, without decoding them."""
    images = [(xref, width, height) for xref, _, width, height, *_ in page.get_images(full=True)[:_MOST_IMAGES]]
    whole = sum(width * height for _, width, height in images)
    yield from (image for image in images if image[1] * image[2] >= _SMALLEST * whole)


def _filters(pdf: Any, xref: int) -> list[str]:
    kind, text = pdf.xref_get_key(xref, "Filter")
    if kind == "xref":
        text = pdf.xref_object(int(text.split()[0]), compressed=True)
    return re.findall(r"/(\w+)", text)


def _missing(pdf: Any, xref: int, height: int) -> tuple[float, bool]:
    """Return the share of an image's rows that is missing in its data, and whether the data has its end marker."""
    filters = _filters(pdf, xref)
    raw = pdf.xref_stream_raw(xref)
    try:
        if filters == ["DCTDecode"]:
            return missing_of_jpeg(raw), False
        if filters == ["JPXDecode"]:
            return missing_of_jpeg2000(raw), False
        if "JBIG2Decode" in filters or "DCTDecode" in filters or "JPXDecode" in filters:
            return 0.0, True  # it can't be measured
        pixmap = mupdf().Pixmap(pdf, xref)
        row = _bytes_of_a_row(pdf, xref, pixmap)
        return short(len(pdf.xref_stream(xref)) // row, height), _ended(raw, filters)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - decoders raise many types: nothing of the image is usable
        return 1.0, False


def _bytes_of_a_row(pdf: Any, xref: int, pixmap: Any) -> int:
    mask = pdf.xref_get_key(xref, "ImageMask")[1] == "true"
    bits = 1 if mask else int(pdf.xref_get_key(xref, "BitsPerComponent")[1])
    space = pdf.xref_get_key(xref, "ColorSpace")[1]
    if re.fullmatch(r"\d+ 0 R", space):
        space = pdf.xref_object(int(space.split()[0]), compressed=True)
    channels: int = 1 if mask or "/Indexed" in space or "/Separation" in space else pixmap.n - pixmap.alpha
    return max(1, (int(pixmap.width) * bits * channels + 7) // 8)


def _ended(raw: bytes, filters: list[str]) -> bool:
    match filters:
        case ["FlateDecode"]:
            inflate = zlib.decompressobj()
            with suppress(zlib.error):
                inflate.decompress(raw)
            return inflate.eof
        case ["CCITTFaxDecode"]:
            return _END_OF_FAX in "".join(f"{byte:08b}" for byte in raw.rstrip(b"\0\r\n")[-8:])
        case _:
            return False
