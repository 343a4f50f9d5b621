"""An output folder: files below it, written so that neither a planted link nor a power cut does harm."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ocrfleet.durable import DurableTree, flush_file, flush_folder, new_file

_CHUNK = 1 << 20


class OutputFolder:
    """A folder that others may write to as well. The folder itself may be a link, as a person named it; nothing below it may."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, path: Path, content: BinaryIO) -> None:
        """Write a file at or below the folder, whose path starts with the folder's; the same content is left alone.

        The file and its name are on the disk when this returns. A link at the path is replaced, not followed. Raises OSError.
        """
        with self._opened(path.parent) as folder, new_file(fd=folder) as (aside, out):
            shutil.copyfileobj(content, out, _CHUNK)
            if not _is_same(folder, path.name, out):
                flush_file(out)
                os.rename(aside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
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


def _is_same(folder: int, name: str, out: BinaryIO) -> bool:
    """Return whether a file in a folder has the content of an open one."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its writer.
        there = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    with open(there, "rb") as other:  # noqa: PTH123 - a descriptor
        status = os.fstat(there)
        if not stat.S_ISREG(status.st_mode) or status.st_size != out.seek(0, os.SEEK_END):
            return False
        out.seek(0)
        while piece := out.read(_CHUNK):
            if piece != other.read(len(piece)):
                return False
    return True
