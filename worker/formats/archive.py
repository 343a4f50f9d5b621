"""A zip file as an output: the same members give the same bytes, and a member is written when it comes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

#: The earliest time that a zip file can hold: that of writing would differ from run to run.
_TIME = (1980, 1, 1, 0, 0, 0)
#: 3: Unix, whatever this machine is.
_SYSTEM = 3
_MODE = 0o100644 << 16
#: Of nine: XML is a tenth larger than at the usual level, in half the time.
_LEVEL = 3


class Archive:
    """Writes members one after the other. Memory grows by some hundred bytes for each."""

    def __init__(self, out: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(out, "w")

    def write(self, name: str, data: bytes, *, compress: bool = True) -> None:
        """Add a member whose name was made here; data that is compressed already needs no compression."""
        self._zip.writestr(_member(name, compress=compress), data, compresslevel=_LEVEL)

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open a member to be written piece by piece, while no other is written."""
        with self._zip.open(_member(name, compress=True), "w", force_zip64=True) as out:
            yield out

    def close(self) -> None:
        """Write the list of members. The file itself stays open."""
        self._zip.close()


def _member(name: str, *, compress: bool) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _TIME)
    member.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    member.create_system = _SYSTEM
    member.external_attr = _MODE
    return member
