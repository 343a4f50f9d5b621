"""Decodes the JPEG of a PDF page that consists of one scan at a fraction of its size; MuPDF would decode it completely.

libjpeg skips what a smaller image doesn't need, and is faster: 17 ms instead of 40 for a grey A4 page at 300 dpi
(bench/rendering.py). This is exact only if the page has nothing else and the image is not rotated, cropped, masked or recoloured;
in any doubt MuPDF renders the page. Part of the sandboxed program, worker/rendering/rasterise.py.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from ocrfleet.sandbox.completeness import went_through_text_transfer
from ocrfleet.sandbox.pdf import mupdf
from ocrfleet.sandbox.pdf_images import NoiseError

if TYPE_CHECKING:
    from PIL.Image import Image

#: How much larger, in each direction, the image for the parent may be: the parent's filter uses the nearest pixels only.
_REST = 1.125

#: The content of a page that draws one image upright and nothing else: its size, position (points) and name.
_NUMBER, _ZERO = r"(-?\d*\.?\d+)", r"0(?:\.0*)?"
_ONE_IMAGE = re.compile(
    rf"\s*q\s+{_NUMBER}\s+{_ZERO}\s+{_ZERO}\s+{_NUMBER}\s+{_NUMBER}\s+{_NUMBER}\s+cm\s+/([\w.-]+)\s+Do\s+Q\s*".encode()
)
#: The allowed keys of such an image's dictionary; masks, decode arrays, layers and others change its appearance.
_PLAIN_IMAGE = frozenset(
    ("Type", "Subtype", "Name", "Width", "Height", "BitsPerComponent", "ColorSpace", "Filter", "Length")
)
_PLAIN_SPACES = {"/DeviceGray": "L", "/DeviceRGB": "RGB"}
#: The position of the colour space in an ICC profile (ICC.1:2022, 7.2). Profiles are not applied, see `mupdf`.
_PROFILE_SPACES, _PROFILE_SPACE = {b"GRAY": "L", b"RGB ": "RGB"}, slice(16, 20)


def nearly(image: Image, size: tuple[int, int], room: int) -> Image | None:
    """Return the image, reduced by whole numbers, if it is then little too large and fits into so many bytes; else None."""
    if image.mode not in ("L", "RGB"):
        return None
    factors = image.width // size[0], image.height // size[1]
    if 0 in factors:
        return None  # it must be enlarged
    width, height = -(-image.width // factors[0]), -(-image.height // factors[1])
    if width > size[0] * _REST or height > size[1] * _REST or width * height * len(image.mode) > room:
        return None
    return image if factors == (1, 1) else image.reduce(factors)


def only_scan(page: Any, size: tuple[int, int], room: int) -> Image | None:
    """Decode the only JPEG of a PDF page, if the result is little larger than `size` and has at most `room` bytes.

    Returns None otherwise and in any doubt: then MuPDF renders the page, or reports its defect. Raises NoiseError for a JPEG
    that is only noise, which no decoder notices.
    """
    try:
        found = _only_image(page, size)
        if found is None:
            return None
        xref, mode = found
        return _decode_scan(page.parent, xref, mode, size, room)
    except NoiseError:
        raise
    except Exception:  # noqa: BLE001 - a wrong password, a truncated file, no memory: MuPDF reports it
        return None


def _only_image(page: Any, size: tuple[int, int]) -> tuple[int, str] | None:
    """Return the number and Pillow's mode of the image that covers the page exactly, if the page draws nothing else."""
    pymupdf = mupdf()
    key = page.parent.xref_get_key
    changing = ("Annots", "Group", "Resources/ColorSpace")
    if page.rotation or any(key(page.xref, name)[0] != "null" for name in changing):
        return None
    match = _ONE_IMAGE.fullmatch(page.read_contents())
    if match is None:
        return None
    across, down, left, bottom = (float(number) for number in match.groups()[:4])
    placed = pymupdf.Rect(0, 0, 1, 1) * pymupdf.Matrix(across, 0, 0, down, left, bottom) * page.transformation_matrix
    # Less than half a pixel: MuPDF would move it to the page's edge, too.
    pixel = min(page.rect.width / size[0], page.rect.height / size[1])
    if across <= 0 or down <= 0 or any(abs(a - b) >= pixel / 2 for a, b in zip(placed, page.rect, strict=True)):
        return None
    kind, reference = key(page.xref, f"Resources/XObject/{match[5].decode()}")
    if kind != "xref":
        return None
    xref = int(reference.split()[0])
    image = {name: key(xref, name) for name in page.parent.xref_get_keys(xref)}
    if not image.keys() <= _PLAIN_IMAGE or image["Subtype"][1] != "/Image" or image["BitsPerComponent"][1] != "8":
        return None
    mode = _colours(page.parent, image["ColorSpace"])
    return (xref, mode) if mode and image["Filter"][1] in ("/DCTDecode", "[/DCTDecode]") else None


def _colours(pdf: Any, space: tuple[str, str]) -> str | None:
    """Return Pillow's mode for a PDF's colour space (its type and text); None if their colours may differ."""
    kind, text = space
    if kind == "xref":
        text = pdf.xref_object(int(text.split()[0]), compressed=True)
    if text in _PLAIN_SPACES:
        return _PLAIN_SPACES[text]
    profile = re.fullmatch(r"\[\s*/ICCBased\s+(\d+) 0 R\s*\]", text)
    # The alternate space may be of another kind.
    if profile is None or pdf.xref_get_key(int(profile[1]), "Alternate")[1] not in ("null", *_PLAIN_SPACES):
        return None
    mode = _PROFILE_SPACES.get(pdf.xref_stream(int(profile[1]))[_PROFILE_SPACE])
    return mode if mode and pdf.xref_get_key(int(profile[1]), "N")[1] == str(len(mode)) else None


def _decode_scan(pdf: Any, xref: int, mode: str, size: tuple[int, int], room: int) -> Image | None:
    """Decode a JPEG of a PDF; None unless Pillow decodes it exactly as MuPDF does. Raises OSError if it is truncated."""
    import PIL.Image  # noqa: PLC0415 - native code: under the limits

    data = pdf.xref_stream_raw(xref)
    if went_through_text_transfer(data):
        raise NoiseError
    image = PIL.Image.open(io.BytesIO(data), formats=["JPEG"])
    claimed = tuple(int(pdf.xref_get_key(xref, side)[1]) for side in ("Width", "Height"))
    # The colours are certainly YCbCr with one of these markers and without one that says otherwise.
    info = image.info
    known = mode == "L" or (("jfif" in info or "adobe" in info) and info.get("adobe_transform", 1) == 1)
    if (image.format, image.mode, image.size) != ("JPEG", mode, claimed) or not known:
        return None
    image.draft(None, size)
    if nearly(image, size, room) is not image:
        return None
    image.load()
    return None if mupdf().TOOLS.mupdf_warnings(reset=0) else image
