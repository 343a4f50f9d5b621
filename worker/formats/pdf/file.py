"""Writes the objects of a PDF one after the other; keeps only their offsets in memory (ISO 32000-1, 7.5)."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable
from typing import BinaryIO

#: The comment after the header has non-ASCII bytes: file transfer programs then treat the file as binary.
_HEADER = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"


class PdfFile:
    """A PDF that is being written. Objects may be referenced by number before they are written."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._at = 0
        #: offset of each object, from number 1; 0 until it is written
        self._offsets = array("Q")
        self._write(_HEADER)

    def reserve(self) -> int:
        """Reserve the number of an object to write later."""
        self._offsets.append(0)
        return len(self._offsets)

    def add(self, body: bytes, number: int | None = None) -> int:
        """Write an object and return its number."""
        number = number or self.reserve()
        self._offsets[number - 1] = self._at
        self._write(b"%d 0 obj\n%b\nendobj\n" % (number, body))
        return number

    def stream(
        self, entries: bytes, parts: Iterable[bytes | memoryview], size: int, *, number: int | None = None
    ) -> int:
        """Write a stream of `size` bytes unchanged. `entries`: its dictionary without Length."""
        number = number or self.reserve()
        self._offsets[number - 1] = self._at
        self._write(b"%d 0 obj\n<<%b/Length %d>>\nstream\n" % (number, entries, size))
        for part in parts:
            self._write(part)
        self._write(b"\nendstream\nendobj\n")
        return number

    def compressed(self, entries: bytes, data: bytes, *, number: int | None = None) -> int:
        """Write a stream compressed by Flate."""
        packed = zlib.compress(data, 9)
        return self.stream(entries + b"/Filter/FlateDecode", (packed,), len(packed), number=number)

    def end(self, *, root: int, info: int | None = None, identifier: str) -> None:
        """Write the cross-reference table and the trailer. `identifier` is hexadecimal, and the same for the same content."""
        start = self._at
        self._write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(self._offsets) + 1))
        for offset in self._offsets:
            self._write(b"%010d 00000 n \n" % offset if offset else b"0000000000 65535 f \n")
        about = b"/Info %d 0 R" % info if info else b""
        name = b"<%b>" % identifier.encode("ascii")
        self._write(
            b"trailer\n<</Size %d/Root %d 0 R%b/ID[%b%b]>>\nstartxref\n%d\n%%%%EOF\n"
            % (len(self._offsets) + 1, root, about, name, name, start)
        )

    def _write(self, data: bytes | memoryview) -> None:
        self._out.write(data)
        self._at += len(data)
