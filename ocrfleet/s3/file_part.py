"""A part of an open file as a stream, for uploads in parts."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class FilePart(io.RawIOBase):
    """Up to `length` bytes of a file from offset `start` on, without a buffer. Several threads may read parts of one file."""

    def __init__(self, file: int, start: int, length: int) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._length = max(0, min(length, os.fstat(file).st_size - start))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begun = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, begun + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._length - self._at))
        read = os.preadv(self._file, [view[:wanted]], self._start + self._at) if wanted else 0
        self._at += read
        return read
