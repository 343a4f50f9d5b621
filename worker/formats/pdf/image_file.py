"""The sandboxed program that extracts an image from its file for a PDF, started by a Sandbox.

Formats that a PDF can embed are copied unchanged: JPEG, JPEG 2000, the compressed rows of a PNG, CCITT G4 of a TIFF. Other
images are decoded and compressed without loss: bilevel with G4, CMYK with Flate, the rest as PNG rows. The program writes the
image, its mask and its colour profile to the shared memory, in this order.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.decoders import load_decoders, open_document
from ocrfleet.sandbox.image_files import ImageDocument

if TYPE_CHECKING:
    from mmap import mmap

    from PIL.Image import Image

    from ocrfleet.sandbox.child import Handler

#: Orientation tag of EXIF and TIFF.
_ORIENTATION = 274
#: TIFF tags (TIFF 6.0) that are needed to extract a strip.
_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, _ROWS, _STRIP_SIZES, _OPTIONS = (
    *(256, 257, 259, 262, 266, 273),
    *(278, 279, 293),
)
_GROUP_4 = 4
#: JPEG frame types that a PDF may embed (Huffman coding, 8 bits): baseline, extended, progressive.
_HUFFMAN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
#: Number of channels and PDF colour space of PNG colour types without transparency.
_PNG_COLOURS = {0: (1, "DeviceGray"), 2: (3, "DeviceRGB"), 3: (1, "Indexed")}
_SPACES = {"L": "DeviceGray", "1": "DeviceGray", "RGB": "DeviceRGB", "CMYK": "DeviceCMYK"}
#: Offset of the colour space in an ICC profile (ICC.1:2022, 7.2), and maximum profile size; larger profiles are omitted.
_PROFILE_SPACE, _LARGEST_PROFILE = slice(16, 20), 4 << 20
_PROFILES = {"DeviceGray": b"GRAY", "DeviceRGB": b"RGB ", "Indexed": b"RGB ", "DeviceCMYK": b"CMYK"}
#: Pillow modes that are stored unchanged, and conversions of other modes with transparency.
_STORED = frozenset({"1", "P", "L", "LA", "RGB", "RGBA", "CMYK", "I;16"})
_CONVERTED = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An image for a PDF, with the entries of ISO 32000-1, 8.9.5. Sizes are in pixels as stored, before rotation."""

    data: bytes | memoryview
    width: int
    height: int
    filter: str
    #: None for JPEG 2000, which contains it
    space: str | None
    bits: int = 8
    #: whether zero is white, or full colour
    inverted: bool = False
    #: whether rows have PNG filters
    predicted: bool = False
    palette: bytes = b""
    mask: bytes = b""
    profile: bytes = b""
    #: as in EXIF, 1 to 8
    orientation: int = 1


class ImageFile:
    """Keeps its file open: finding a TIFF's last frame means reading the directories of those before it."""

    def __init__(self) -> None:
        self._document: ImageDocument | None = None

    def __call__(self, request: dict[str, Any], fd: int | None, shared: mmap | None) -> dict[str, Any]:
        """Extract the image of a frame; return its description. Raises PermanentError if it can't be decoded."""
        if fd is None or shared is None:
            raise ValueError("an image needs a file and memory")
        if self._document is None:
            document = open_document(fd, Kind(request["kind"]))
            if not isinstance(document, ImageDocument):
                raise ValueError("a PDF is no image")
            self._document = document
        taken = take(self._document, Kind(request["kind"]), request["page"])
        parts = taken.data, taken.mask, taken.profile
        if sum(map(len, parts)) > len(shared):
            raise PermanentError(Reason.TOO_LARGE, "the image is too large for a PDF")
        at = 0
        for part in parts:
            shared[at : at + len(part)] = part
            at += len(part)
        return {
            "width": taken.width,
            "height": taken.height,
            "filter": taken.filter,
            "space": taken.space,
            "bits": taken.bits,
            "inverted": taken.inverted,
            "predicted": taken.predicted,
            "palette": taken.palette.hex(),
            "orientation": taken.orientation,
            "sizes": [len(part) for part in parts],
        }


def handler() -> Handler:
    load_decoders()
    return ImageFile()


def take(document: ImageDocument, kind: Kind, index: int) -> Taken:
    """Return the image of a frame, unchanged if a PDF can embed it. Raises PermanentError."""
    try:
        return _take(document, kind, index, document.frame(index))
    except PermanentError as error:
        if error.reason is not Reason.UNREADABLE:
            raise
    # As in rendering of a damaged file: use the decodable part, or another decoder.
    try:
        with document.tolerate_truncation():
            image = document.frame(index)
            with document.errors(image.width * image.height):
                return _decoded(document, index, image)
    except PermanentError:
        image, _ = document.decode_with_other_library(index)
        with document.errors(image.width * image.height):
            return _decoded(document, index, image)


def _take(document: ImageDocument, kind: Kind, index: int, image: Image) -> Taken:
    taken = None
    with document.errors(image.width * image.height):
        match kind:
            case Kind.JPEG:
                taken = _jpeg(document.data, image)
            case Kind.JPEG2000:
                taken = _jpeg2000(document.data, image)
            case Kind.PNG:
                taken = _png(document.data)
            case Kind.TIFF:
                taken = _group_4(document.data, image)
        if taken is None:
            taken = _decoded(document, index, image)
        elif kind is not Kind.TIFF:
            taken = replace(taken, orientation=_orientation(image))
        profile = image.info.get("icc_profile") or b""
        wanted = _PROFILES.get(taken.space or "")
        if len(profile) <= _LARGEST_PROFILE and profile[_PROFILE_SPACE] == wanted:
            taken = replace(taken, profile=profile)
    return taken


def _jpeg(data: Any, image: Image) -> Taken | None:
    if image.mode not in _SPACES or _jpeg_frame(data) not in _HUFFMAN_FRAMES:
        return None
    return Taken(
        data=memoryview(data),
        width=image.width,
        height=image.height,
        filter="DCTDecode",
        space=_SPACES[image.mode],
        # Adobe programs store CMYK inverted; their marker identifies such files.
        inverted=image.mode == "CMYK" and "adobe" in image.info,
    )


def _jpeg_frame(data: Any) -> int | None:
    """Return the start-of-frame marker of a JPEG, which gives its coding."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:  # noqa: PLR2004 - begins a marker
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # noqa: PLR2004 - frames, without tables
            return int(marker) if data[at + 4] == 8 else None  # noqa: PLR2004 - bits
        if marker == 0xFF:  # noqa: PLR2004 - fills
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _jpeg2000(data: Any, image: Image) -> Taken | None:
    if image.mode not in {"L", "RGB", "I;16"}:
        return None
    boxed = data[4:8] == b"jP  "
    space = None if boxed else _SPACES.get(image.mode, "DeviceGray")
    return Taken(data=memoryview(data), width=image.width, height=image.height, filter="JPXDecode", space=space)


def _png(data: Any) -> Taken | None:
    """Return the compressed rows of a PNG; None if it is transparent or interlaced."""
    rows, palette, header = [], b"", b""
    at = 8
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + size]
        match name:
            case b"IHDR":
                header = body
            case b"PLTE":
                palette = body
            case b"tRNS" | b"fdAT":
                return None
            case b"IDAT":
                rows.append(body)
            case b"IEND":
                break
        at += 12 + size
    width, height, bits, colours, *_, interlaced = struct.unpack(">IIBBBBB", header[:13])
    if colours not in _PNG_COLOURS or interlaced or (colours == 3) != bool(palette and colours == 3):  # noqa: PLR2004
        return None
    return Taken(
        data=b"".join(rows),
        width=width,
        height=height,
        filter="FlateDecode",
        space=_PNG_COLOURS[colours][1],
        bits=bits,
        predicted=True,
        palette=palette if colours == 3 else b"",  # noqa: PLR2004
    )


def _group_4(data: Any, image: Any) -> Taken | None:
    """Return the strip of a bilevel TIFF frame with a single strip in CCITT G4, else None."""
    tags = image.tag_v2
    strips, sizes = tags.get(_STRIPS, ()), tags.get(_STRIP_SIZES, ())
    if tags.get(_COMPRESSION) != _GROUP_4 or len(strips) != 1 or len(sizes) != 1 or tags.get(_OPTIONS, 0):
        return None
    rows = data[strips[0] : strips[0] + sizes[0]]
    if tags.get(_FILL_ORDER, 1) == 2:  # noqa: PLR2004 - the lowest bit comes first
        rows = rows.translate(_REVERSED)
    return Taken(
        data=rows,
        width=int(tags[_WIDTH]),
        height=int(tags[_HEIGHT]),
        filter="CCITTFaxDecode",
        space="DeviceGray",
        bits=1,
        inverted=tags.get(_PHOTOMETRIC, 0) == 1,
        orientation=int(tags.get(_ORIENTATION, 1)),
    )


def _decoded(document: ImageDocument, index: int, image: Image) -> Taken:
    """Return the image decoded and compressed again without loss."""
    try:
        negative = document.is_negative(image)
        image = document.own_decoding(image) or image
        image.load()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow's errors are of many types
        image, _ = document.decode_with_other_library(index)
        negative = False
    orientation = _orientation(image)
    image = _plain(image)
    if negative:
        image = image.point(lambda value: 65535 - value)
    mask = b""
    if image.mode in ("LA", "RGBA"):
        mask = bytes(_rows(image.getchannel("A")).data)
        image = image.convert(image.mode[:-1])
    if image.mode == "1":
        taken = _bilevel(image)
    elif image.mode == "CMYK":
        taken = Taken(
            data=zlib.compress(image.tobytes()),
            width=image.width,
            height=image.height,
            filter="FlateDecode",
            space="DeviceCMYK",
        )
    else:
        taken = _rows(image)
    return replace(taken, mask=mask, orientation=orientation)


def _plain(image: Image) -> Image:
    """Return the image in a mode that PNG or PDF supports: without loss, except for float and 32-bit modes."""
    mode = image.mode
    if mode in ("P", "L", "RGB", "1") and "transparency" in image.info:
        return image.convert("RGBA")
    if mode in ("I", "F") or (mode.startswith("I;16") and mode != "I;16"):
        return _grey(image)
    if mode == "LAB":
        return image.getchannel("L")
    return image if mode in _STORED else image.convert(_CONVERTED.get(mode, "RGB"))


def _grey(image: Image) -> Image:
    """Return deep grey as 16 bits if the values fit, else scaled to 8 bits."""
    if image.mode.startswith("I;16"):
        image = image.convert("I")  # big-endian pixels have no extrema
    low, high = cast("tuple[float, float]", image.getextrema())
    if image.mode == "I" and low >= 0 and high < 1 << 16:
        return image.convert("I;16")
    scale = 255.0 / (high - low) if low < high else 1.0
    return image.point(lambda value: value * scale - low * scale).convert("L")


def _rows(image: Image) -> Taken:
    file = io.BytesIO()
    image.save(file, "PNG", icc_profile=None)
    taken = _png(file.getvalue())
    assert taken is not None  # noqa: S101 - it has no transparency
    return taken


def _bilevel(image: Image) -> Taken:
    file = io.BytesIO()
    image.save(file, "TIFF", compression="group4", tiffinfo={_ROWS: image.height})
    import PIL.Image  # noqa: PLC0415 - native code: only in a sandbox, under its limits

    data = file.getvalue()
    taken = _group_4(data, PIL.Image.open(io.BytesIO(data), formats=["TIFF"]))
    if taken is None:
        return _rows(image)
    return taken


def _orientation(image: Image) -> int:
    try:
        value = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged tags do not affect the image
        return 1
    return value if 1 <= value <= 8 else 1  # noqa: PLR2004 - EXIF's values
