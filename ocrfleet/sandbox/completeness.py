"""Measures how much of a truncated image is missing: a share of its rows, 0 to 1.

Runs inside sandboxes, and only for images with an error of their decoder.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

    from ocrfleet.sandbox.mapped_file import MappedFile

#: A row is missing if at least this share of it depends on missing bytes, by at least so many levels of 255.
_OF_A_ROW, _LEVELS = 0.02, 8
#: A progressive JPEG has this many frequencies, less one.
_LAST_FREQUENCY = 63
#: Bytes of noise in place of the missing ones, between restart markers if the JPEG has them.
_NOISE, _BETWEEN_RESTARTS = 1 << 16, 256
#: JPEG's markers: restart (eight of them), start of scan, restart interval, frame drawn scan by scan.
_RESTART, _SCAN, _INTERVAL, _PROGRESSIVE = 0xD0, 0xDA, 0xDD, 0xC2
#: In compressed data each byte value is one in 256. If the neighbours of line feed and carriage return occur at least so often, …
_ENOUGH_BYTES = 16
#: … in so many bytes that can't be compressed below this share, a value that never occurs was replaced.
_SAMPLE, _DENSE = 1 << 16, 0.75

#: How a JPEG 2000's codestream begins, its markers, and how many times longer it may be made to have all that it claims.
_CODESTREAM, _MOST_PADDING = b"\xff\x4f\xff\x51", 50
_TILE_PART, _END_OF_CODESTREAM = 0xFF90, 0xFFD9
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: The seven passes of an interlaced PNG: first column and row, steps (PNG 1.2, section 2.6).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@contextmanager
def tolerate_truncation() -> Iterator[None]:
    """Let Pillow ignore wrong checksums, and decode as much of a truncated picture as there is."""
    from PIL import ImageFile  # noqa: PLC0415 - native code: under the limits

    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def missing_of_jpeg(data: bytes) -> float:
    """Return the share of a JPEG's rows that are missing in its data. Raises Pillow's error if it is no JPEG.

    The data is continued in two ways, with its end marker and with noise: rows that differ between the pictures are missing.
    """
    from PIL import ImageChops  # noqa: PLC0415 - native code: under the limits
    from PIL.Image import Resampling  # noqa: PLC0415 - as above

    body = data[: data.rfind(b"\xff\xd9")] if data.rstrip(b"\0\r\n").endswith(b"\xff\xd9") else data
    ended, continued = _decoded(body + b"\xff\xd9"), _decoded(body + _noise(body) + b"\xff\xd9")
    differs = ImageChops.difference(ended, continued).convert("L").point([255 * (n > _LEVELS) for n in range(256)])
    # A column with the share of each row: one pixel for a row, averaged.
    rows = [row > _OF_A_ROW * 255 for row in differs.resize((1, differs.height), Resampling.BOX).tobytes()]
    if bytes((0xFF, _PROGRESSIVE)) in body[: body.find(bytes((0xFF, _SCAN)))]:
        scans = _scans(body)
        brightness = [scan for scan in scans if scan[0] == scans[0][0]]
        if max((last for _, last, _ in brightness), default=0) < _LAST_FREQUENCY:
            return 1.0
        # Later scans refine the first details of brightness, or add colours: letters are visible without them.
        in_details = scans[-1] == brightness[-1] and not scans[-1][2]
        return sum(rows) / max(1, len(rows)) if in_details else 0.0
    return (len(rows) - rows.index(True)) / len(rows) if any(rows) else 0.0


def went_through_text_transfer(data: bytes | MappedFile) -> bool:
    """Say whether compressed data was transferred as text: all its line ends are those of one system, which is no chance.

    Looks at a part in the middle, as every page pays for it: 30 microseconds.
    """
    middle = len(data) // 2
    part = data[middle : middle + _SAMPLE]
    feeds, returns = part.count(b"\n"), part.count(b"\r")
    if feeds and returns and part.count(b"\r\n") != feeds:
        return False
    if min(part.count(byte) for byte in (b"\x09", b"\x0b", b"\x0c", b"\x0e")) < _ENOUGH_BYTES:
        return False
    # The data of an empty picture is repetitive, and may lack any byte.
    return len(zlib.compress(part)) > _DENSE * len(part)


def missing_of_png(data: bytes) -> float:
    """Return the share of a PNG's picture that is missing in its compressed data."""
    header, body = b"", bytearray()
    for name, chunk in _png_chunks(data):
        if name == b"IHDR" and not header:
            header = chunk
        if name == b"IDAT":
            body += chunk
    if len(header) < 13:  # noqa: PLR2004 - the size of that chunk
        return 1.0
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", header[:13])
    expected = _png_size(width, height, depth * _PNG_CHANNELS.get(colours, 1), interlaced=bool(interlaced))
    return short(_inflated_size(bytes(body), expected), expected)


def missing_of_jpeg2000(data: bytes) -> float:
    """Return the share of a JPEG 2000's tile parts, in bytes, that is missing in its file (ISO 15444-1, A.4.2)."""
    parts = list(_tile_parts(data))
    return short(sum(held for held, _ in parts), sum(claimed for _, claimed in parts))


def ended_jpeg2000(data: bytes) -> bytes | None:
    """Return the codestream of a truncated JPEG 2000, completed with zeros and an end marker; None if too much is missing.

    OpenJPEG decodes nothing of the truncated codestream.
    """
    parts = list(_tile_parts(data))
    lacking = sum(claimed - held for held, claimed in parts)
    if not parts or lacking > _MOST_PADDING * len(data):
        return None
    return data[data.find(_CODESTREAM) :] + bytes(lacking) + b"\xff\xd9"


def missing_of_bmp(data: bytes) -> float:
    """Return the share of an uncompressed BMP's rows that is missing in its file; 0 if it is compressed."""
    if len(data) < 34:  # noqa: PLR2004 - its header
        return 1.0
    (offset,), (width, height, _, depth, compression) = (
        struct.unpack_from("<I", data, 10),
        struct.unpack_from("<iiHHI", data, 18),
    )
    if compression not in (0, 3):
        return 0.0
    return short(len(data) - offset, (width * depth + 31) // 32 * 4 * abs(height))


def short(held: int, expected: int) -> float:
    """Return the missing share of rows or bytes."""
    return 1.0 - min(max(0, held) / expected, 1.0) if expected > 0 else 1.0


def _decoded(data: bytes) -> Image:
    import PIL.Image  # noqa: PLC0415 - native code: under the limits

    with tolerate_truncation():
        image: Image = PIL.Image.open(io.BytesIO(data), formats=["JPEG"])
        image.load()
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _noise(body: bytes) -> bytes:
    """Return noise to continue a JPEG's data with, the same for the same data."""
    noise = random.Random(0).randbytes(_NOISE).replace(b"\xff", b"\x7f")  # noqa: S311 - nothing secret
    times = max(1, 4 * len(body) // len(noise))
    if bytes((0xFF, _INTERVAL)) not in body[: max(0, body.find(bytes((0xFF, _SCAN))))]:
        return noise * times
    last = max((body.rfind(bytes((0xFF, _RESTART + number))), number) for number in range(8))
    begin = last[1] + 1 if last[0] >= 0 else 0
    pieces = (noise[at : at + _BETWEEN_RESTARTS] for at in range(0, len(noise), _BETWEEN_RESTARTS))
    return b"".join(piece + bytes((0xFF, _RESTART + (begin + n) % 8)) for n, piece in enumerate(pieces)) * times


def _scans(body: bytes) -> list[tuple[int, int, int]]:
    """Return for each scan its first component, its last frequency, and 0 if that frequency is sent for the first time."""
    scans, at = [], 0
    while (at := body.find(bytes((0xFF, _SCAN)), at)) >= 0:
        header = body[at + 4 : at + 16]
        count = header[0] if header else 0
        if 1 <= count <= 4 and len(header) >= 2 * count + 4:  # noqa: PLR2004 - components
            scans.append((header[1], header[2 * count + 2], header[2 * count + 3] >> 4))
        at += 2
    return scans


def _tile_parts(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the number of present and of claimed bytes of each tile part of a JPEG 2000."""
    start = data.find(_CODESTREAM)
    at = start + 2 if start >= 0 else len(data)
    while at + 4 <= len(data):
        marker, size = struct.unpack_from(">HH", data, at)
        if marker == _TILE_PART:
            if at + 10 > len(data):
                break
            (claimed,) = struct.unpack_from(">I", data, at + 6)
            claimed = claimed or len(data) - at - 2  # 0: up to the end
            yield min(claimed, len(data) - at), claimed
            at += claimed
        elif marker == _END_OF_CODESTREAM:
            break
        else:
            at += 2 + size


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        yield name, data[at + 8 : at + 8 + size]
        at += 12 + size


def _png_size(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Return the uncompressed size of a picture in bytes: each row and its filter byte."""
    if not interlaced:
        return height * (1 + (width * bits + 7) // 8)
    passes = ((len(range(x, width, dx)), len(range(y, height, dy))) for x, y, dx, dy in _PASSES)
    return sum(down * (1 + (across * bits + 7) // 8) for across, down in passes if across)


def _inflated_size(data: bytes, most: int) -> int:
    """Return the number of bytes to which data inflates before it ends or is damaged, at most about `most`."""
    inflate, size, at = zlib.decompressobj(), 0, 0
    try:
        while at < len(data) and size < most and not inflate.eof:
            size += len(inflate.decompress(data[at : at + 4096]))
            at += 4096
    except zlib.error:
        pass
    return size
