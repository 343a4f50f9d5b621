"""An output folder: files below it, written so that neither a planted link nor a power cut does harm."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ocrfleet.durable import DurableTree, flush_file, flush_folder, new_file
from producer.delivery.delivered_files import DeliveredFiles
from producer.errors import OccupiedError

_CHUNK = 1 << 20


class OutputFolder:
    """A folder that others may write to as well. The folder itself may be a link, as a person named it; nothing below it may."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._delivered = DeliveredFiles(root)

    def write(self, path: Path, content: BinaryIO, *, earlier: Callable[[], Container[str]] = tuple) -> None:
        """Write a file at or below the folder, whose path starts with the folder's; the same content is left alone.

        The file and its name are on the disk when this returns. Raises OSError, and OccupiedError when something else is at the
        path, unless its SHA-256 is among those of earlier outputs.
        """
        with self._opened(path.parent) as folder, new_file(fd=folder) as (aside, out):
            shutil.copyfileobj(content, out, _CHUNK)
            sha256 = _sha256(out)
            there = _there(folder, path.name)
            if there != sha256:
                if there is not None and there not in self._delivered.digests(path) and there not in earlier():
                    raise OccupiedError(
                        f"{path} can't be written: what is there was not written by ocrfleet, or was changed since; move it away"
                    )
                flush_file(out)
                self._delivered.add(path, sha256)
                os.rename(aside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                self._delivered.add(path, sha256)
            flush_folder(folder)

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        """Yield the descriptor of a folder, made with its parents. Raises OSError where a link or a file is in the way."""
        DurableTree(self._root)
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in path.relative_to(self._root).parts:
                below = _opened_below(folder, name)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)


def _opened_below(folder: int, name: str) -> int:
    """Open a folder in a folder; make it where it is missing."""
    how = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, how, dir_fd=folder)
    except FileNotFoundError:
        os.mkdir(name, dir_fd=folder)
        flush_folder(folder)
        return os.open(name, how, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            raise OSError(error.errno, f"{name!r} is a file or a link, and no folder") from error
        raise


def _there(folder: int, name: str) -> str | None:
    """Return the SHA-256 of a file in a folder; None where nothing is, "" for what is no file. No link is followed."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its writer.
        there = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link, a socket
            return ""
        raise
    with open(there, "rb") as file:  # noqa: PTH123 - a descriptor
        return _sha256(file) if stat.S_ISREG(os.fstat(there).st_mode) else ""


def _sha256(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type] # typeshed wants readinto, which it has
