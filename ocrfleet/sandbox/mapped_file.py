"""A document as memory: read by its descriptor, never opened by a path, and never copied as a whole."""

from __future__ import annotations

import mmap
from typing import Literal, Self

from ocrfleet.sandbox.child import allow_mapping


class MappedFile(mmap.mmap):
    """The file behind a descriptor, which may be closed afterwards. Raises ValueError for an empty one."""

    def __new__(cls, fd: int, size: int) -> Self:
        allow_mapping(size)
        return super().__new__(cls, fd, size, access=mmap.ACCESS_READ)

    def seek(self, offset: int, whence: Literal[0, 1, 2, 3, 4] = 0) -> int:  # type: ignore[override]
        super().seek(offset, whence)
        return self.tell()  # as files do, and mmap only from Python 3.13 on

    def getvalue(self) -> Self:
        """Return the bytes without copying them: Pillow hands them to libtiff."""
        return self

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Read like a file: PDFium reads in pieces."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
