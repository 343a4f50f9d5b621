"""PDF pages that are nothing but one scan: their JPEG is decoded at a fraction of its size, MuPDF would decode all of it.

libjpeg leaves out what a smaller image doesn't need, and it is faster besides: 17 ms instead of 40 for a grey A4 page at
300 dpi (bench/rendering.py). It is right only where nothing else is on the page, nothing is turned, cropped, masked or
recoloured; in any doubt MuPDF draws the page. Part of the sandboxed program: worker/rendering/rasterise.py.
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

#: How much larger, each way, the parent may be handed an image: its filter looks at the nearest pixels only.
_REST = 1.125

#: What a page's content is that draws one image upright and does nothing else: its size, place (points) and name.
_NUMBER, _ZERO = r"(-?\d*\.?\d+)", r"0(?:\.0*)?"
_ONE_IMAGE = re.compile(
    rf"\s*q\s+{_NUMBER}\s+{_ZERO}\s+{_ZERO}\s+{_NUMBER}\s+{_NUMBER}\s+{_NUMBER}\s+cm\s+/([\w.-]+)\s+Do\s+Q\s*".encode()
)
#: All that the dictionary of such an image may hold; masks, decode arrays, layers and the like change what is seen.
_PLAIN_IMAGE = frozenset(
    ("Type", "Subtype", "Name", "Width", "Height", "BitsPerComponent", "ColorSpace", "Filter", "Length")
)
_PLAIN_SPACES = {"/DeviceGray": "L", "/DeviceRGB": "RGB"}
#: A profile's kind of colours, at this place of it (ICC.1:2022, 7.2): profiles themselves are not applied, see `mupdf`.
_PROFILE_SPACES, _PROFILE_SPACE = {b"GRAY": "L", b"RGB ": "RGB"}, slice(16, 20)


def nearly(image: Image, size: tuple[int, int], room: int) -> Image | None:
    """Return the image, shrunk by whole numbers, if the rest is a trifle and it has room in so many bytes; else None."""
    if image.mode not in ("L", "RGB"):
        return None
    factors = image.width // size[0], image.height // size[1]
    if 0 in factors:
        return None  # it is to be enlarged
    width, height = -(-image.width // factors[0]), -(-image.height // factors[1])
    if width > size[0] * _REST or height > size[1] * _REST or width * height * len(image.mode) > room:
        return None
    return image if factors == (1, 1) else image.reduce(factors)


def only_scan(page: Any, size: tuple[int, int], room: int) -> Image | None:
    """Decode the JPEG that is all of a PDF page, if that gives little more than `size` and at most `room` bytes.

    None in any other case or doubt: then MuPDF draws the page, or says what is wrong with it. Raises NoiseError for one
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
    except Exception:  # noqa: BLE001 - a wrong password, a torn file, no memory: MuPDF meets it again
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
    # Less than half a pixel: MuPDF as well would move it to the page's edge.
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
    """Return Pillow's mode for a PDF's colour space (its type and text); None where the two may see other colours."""
    kind, text = space
    if kind == "xref":
        text = pdf.xref_object(int(text.split()[0]), compressed=True)
    if text in _PLAIN_SPACES:
        return _PLAIN_SPACES[text]
    profile = re.fullmatch(r"\[\s*/ICCBased\s+(\d+) 0 R\s*\]", text)
    # An alternate may be a space of another kind.
    if profile is None or pdf.xref_get_key(int(profile[1]), "Alternate")[1] not in ("null", *_PLAIN_SPACES):
        return None
    mode = _PROFILE_SPACES.get(pdf.xref_stream(int(profile[1]))[_PROFILE_SPACE])
    return mode if mode and pdf.xref_get_key(int(profile[1]), "N")[1] == str(len(mode)) else None


def _decode_scan(pdf: Any, xref: int, mode: str, size: tuple[int, int], room: int) -> Image | None:
    """Decode a JPEG of a PDF; None if it is none that Pillow reads exactly as MuPDF does. Raises OSError for a torn one."""
    import PIL.Image  # noqa: PLC0415 - native code: under the limits

    data = pdf.xref_stream_raw(xref)
    if went_through_text_transfer(data):
        raise NoiseError
    image = PIL.Image.open(io.BytesIO(data), formats=["JPEG"])
    claimed = tuple(int(pdf.xref_get_key(xref, side)[1]) for side in ("Width", "Height"))
    # Whether colours are YCbCr is beyond doubt with one of these markers, and if none says that they aren't.
    info = image.info
    known = mode == "L" or (("jfif" in info or "adobe" in info) and info.get("adobe_transform", 1) == 1)
    if (image.format, image.mode, image.size) != ("JPEG", mode, claimed) or not known:
        return None
    image.draft(None, size)
    if nearly(image, size, room) is not image:
        return None
    image.load()
    return None if mupdf().TOOLS.mupdf_warnings(reset=0) else image
