"""Features of TIFF that Pillow lacks: directories, tiles that are JPEG 2000 or WebP, 16-bit planes, unsupported variants."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.sandbox.limits import MAX_PAGES, check_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from PIL.Image import Image

    from ocrfleet.sandbox.mapped_file import MappedFile

#: Thumbnails and the smaller levels of a pyramid (bit 0), and masks (bit 2), are no pages: TIFF 6.0, NewSubfileType.
_SUBFILE_TYPE, _NO_PAGE = 254, 0b101
#: The tag before that one: 2 is a reduced picture (TIFF 5.0, SubfileType).
_OLD_SUBFILE_TYPE, _REDUCED = 255, 2
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _CHANNELS, _ROWS_PER_STRIP, _STRIP_SIZES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 322, 323, 324, 325
_SEPARATE_PLANES, _UNCOMPRESSED = 2, 1
_BANDS = {2: "LA", 3: "RGB", 4: "RGBA"}
#: The version that a BigTIFF has in its header, where others have 42.
_BIG = 43
#: Bytes of a value, by its type: BYTE, SHORT, LONG, and LONG8 of a BigTIFF.
_INTEGERS = {1: 1, 3: 2, 4: 4, 16: 8}


class _Layout(NamedTuple):
    """How the parts of a directory are packed: the number of its entries, an entry, the offset of the next directory."""

    entries: struct.Struct
    entry: struct.Struct
    offset: struct.Struct


#: By byte order, and whether it is a BigTIFF.
_LAYOUTS = {
    (order, big): _Layout(
        *(struct.Struct(order + part) for part in (("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")))
    )
    for order in "<>"
    for big in (False, True)
}

#: Compressions whose strips and tiles are files of another format; two of JPEG 2000 contain YCbCr without declaring it.
_FORMATS = {
    34712: "JPEG2000",
    33003: "JPEG2000",
    33004: "JPEG2000",
    33005: "JPEG2000",
    50001: "WEBP",
    34927: "WEBP",
    34933: "PNG",
}
_YCBCR = frozenset({33003, 33004})
#: Names of unsupported compressions.
_NAMES = {
    32766: "NeXT",
    32809: "ThunderScan",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv 24",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34925: "LZMA",
    34934: "JPEG XR",
    50000: "Zstandard",
    22610: "JPEG XR",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
#: Compressions and bits of a sample that Pillow or MuPDF read.
_USUAL_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946})
_USUAL_BITS = frozenset({1, 2, 4, 8, 16})


def page_directories(data: MappedFile) -> list[tuple[int, int]]:
    """Return number and offset of each directory that is a page; of all directories if none is.

    One pass over the chain of directories, which ends where it returns to a directory. A page whose directory lies beyond
    the end of the file counts: it fails by itself. Raises ValueError for directories that overlap, and PermanentError
    TOO_LARGE as soon as there are more than MAX_PAGES of them.
    """
    order, offset, layout = _header(data)
    size, left = len(data), len(data) // layout.entry.size
    seen: dict[int, bool] = {}
    while offset and offset not in seen:
        if len(seen) == MAX_PAGES:
            raise PermanentError(Reason.TOO_LARGE, f"the TIFF has more than {MAX_PAGES} images: split it")
        start = offset + layout.entries.size
        if start > size:
            seen[offset] = True
            break
        (entries,) = layout.entries.unpack(data[offset:start])
        end = start + entries * layout.entry.size
        if end + layout.offset.size > size:
            seen[offset] = True
            break
        # Else a small file could hold many directories of many entries, read anew for each of them.
        left -= entries
        if left < 0:
            raise ValueError("the directories of the TIFF overlap")
        seen[offset] = _is_page(layout.entry.iter_unpack(data[start:end]), order)
        (offset,) = layout.offset.unpack(data[end : end + layout.offset.size])
    numbered = list(enumerate(seen))
    return [place for place, page in zip(numbered, seen.values(), strict=True) if page] or numbered


class FromDirectory:
    """The bytes of a TIFF as a file whose header names a directory other than its first: Pillow opens that one at once."""

    def __init__(self, data: MappedFile, offset: int) -> None:
        order, _, layout = _header(data)
        start = 8 if layout is _LAYOUTS[order, True] else 4
        self._data = data
        self._header = data[:start] + layout.offset.pack(offset)
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else self._position + size
        found = self._header[self._position : end] + self._data[max(self._position, len(self._header)) : end]
        self._position += len(found)
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, len(self._data))[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def getvalue(self) -> MappedFile:
        """Return the bytes without copying them: Pillow hands them to libtiff, with the directory's offset."""
        return self._data


def tags_at(data: MappedFile, offset: int) -> Any:
    """Return the tags of the directory at an offset. Raises Pillow's errors."""
    tags = _tags(data)
    data.seek(offset)
    tags.load(data)
    return tags


def unsupported(tags: Mapping[int, Any]) -> str | None:
    """Return the unsupported property of a directory; None if MuPDF may read it, or if it is damaged."""
    compression = _first(tags.get(_COMPRESSION, _UNCOMPRESSED))
    if compression not in _USUAL_COMPRESSIONS:
        name = _NAMES.get(compression, f"method {compression}")
        return f"the TIFF is compressed by {name}, which is not read: save it with another compression"
    bits, planes = _first(tags.get(_BITS, 1)), _first(tags.get(_PLANAR, 1)) == _SEPARATE_PLANES
    if bits not in _USUAL_BITS:
        return f"the TIFF has {bits} bits a sample, which is not read: save it with 8 or 16"
    if planes and _first(tags.get(_CHANNELS, 1)) > 1:
        return (
            f"the TIFF stores its colours apart, with {bits} bits a sample, which is not read: save it as one picture"
        )
    return None


def tiles(data: MappedFile, tags: Mapping[int, Any]) -> Image | None:
    """Return the picture of a directory whose tiles or strips are JPEG 2000 or WebP; None for others."""
    import PIL.Image  # noqa: PLC0415 - native code: under the limits

    compression = _first(tags.get(_COMPRESSION, _UNCOMPRESSED))
    if compression not in _FORMATS or _first(tags.get(_PLANAR, 1)) == _SEPARATE_PLANES:
        return None
    width, height = _first(tags[_WIDTH]), _first(tags[_HEIGHT])
    check_pixels(width, height)
    if _TILES in tags:
        across, down, offsets, sizes = (
            _first(tags[_TILE_WIDTH]),
            _first(tags[_TILE_HEIGHT]),
            tags[_TILES],
            tags[_TILE_SIZES],
        )
    else:
        across, down = width, min(height, _first(tags.get(_ROWS_PER_STRIP, height)))
        offsets, sizes = tags[_STRIPS], tags[_STRIP_SIZES]
    columns = -(-width // across)
    picture = None
    for number, (offset, size) in enumerate(zip(_all(offsets), _all(sizes), strict=False)):
        piece: Any = PIL.Image.open(io.BytesIO(data[offset : offset + size]), formats=[_FORMATS[compression]])
        piece.load()
        if compression in _YCBCR and piece.mode == "RGB":
            piece = PIL.Image.merge("YCbCr", piece.split()).convert("RGB")
        picture = picture or PIL.Image.new(piece.mode, (width, height), 255)
        picture.paste(piece, (number % columns * across, number // columns * down))
    return picture


def planes(data: MappedFile, tags: Mapping[int, Any]) -> Image | None:
    """Return an uncompressed picture of 16 bits whose colours are stored one after the other, in 8 bits; None for others.

    Pillow takes such a file for one of 8 bits.
    """
    import PIL.Image  # noqa: PLC0415 - native code: under the limits

    kind = _first(tags.get(_COMPRESSION, 1)), _first(tags.get(_PLANAR, 1)), _first(tags.get(_BITS, 1))
    if kind != (_UNCOMPRESSED, _SEPARATE_PLANES, 16) or _first(tags.get(_CHANNELS, 1)) not in _BANDS:
        return None
    size, channels = (_first(tags[_WIDTH]), _first(tags[_HEIGHT])), _first(tags[_CHANNELS])
    check_pixels(*size)
    strips = list(zip(_all(tags[_STRIPS]), _all(tags[_STRIP_SIZES]), strict=False))
    each = len(strips) // channels
    data.seek(0)
    high = 0 if data.read(2) == b"MM" else 1
    bands = []
    for channel in range(channels):
        plane = b"".join(
            data[offset : offset + count] for offset, count in strips[channel * each : (channel + 1) * each]
        )
        bands.append(PIL.Image.frombytes("L", size, plane[high::2]))
    return PIL.Image.merge(_BANDS[channels], bands)


def is_negative(tags: Mapping[int, Any]) -> bool:
    """Say whether zero is white."""
    return _first(tags.get(_PHOTOMETRIC, 1)) == 0


def missing(data: MappedFile, tags: Mapping[int, Any]) -> float:
    """Return the share of a directory's strips or tiles, in bytes, that is missing at the end of the file."""
    offsets = _all(tags.get(_TILES, tags.get(_STRIPS, ())))
    sizes = _all(tags.get(_TILE_SIZES, tags.get(_STRIP_SIZES, ())))
    pieces = list(zip(offsets, sizes, strict=False))
    total = sum(size for _, size in pieces)
    held = sum(min(size, max(0, len(data) - offset)) for offset, size in pieces)
    return 1.0 - held / total if total else 1.0


def ends_too_early(data: MappedFile) -> bool:
    """Say whether the file ends before its first directory, which is often at the end."""
    return _header(data)[1] >= len(data)


def _header(data: MappedFile) -> tuple[str, int, _Layout]:
    """Return byte order, offset of the first directory and layout. Raises struct.error for a file without a header."""
    order = "<" if data[:2] == b"II" else ">"
    big = _BIG in data[2:4]
    layout = _LAYOUTS[order, big]
    start = 8 if big else 4
    (offset,) = layout.offset.unpack(data[start : start + layout.offset.size])
    return order, offset, layout


def _is_page(entries: Iterable[tuple[int, int, int, bytes]], order: str) -> bool:
    """Say whether a directory is a page, by its entries: tag, type, number of values, the value or its offset."""
    for tag, kind, _, value in entries:
        if tag in (_SUBFILE_TYPE, _OLD_SUBFILE_TYPE) and kind in _INTEGERS:
            number = int.from_bytes(value[: _INTEGERS[kind]], "little" if order == "<" else "big")
            if number & _NO_PAGE if tag == _SUBFILE_TYPE else number == _REDUCED:
                return False
    return True


def _tags(data: MappedFile) -> Any:
    """Return Pillow's reader of directories, at the file's header."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2  # noqa: PLC0415 - only in a sandbox, under its limits

    return ImageFileDirectory_v2(data[: 16 if _BIG in data[2:4] else 8])


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def _all(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (int(value),)
