"""Files and folders whose names survive a power cut.

A file is written under a random name, its data is flushed, then it gets its own name, and the folder that holds the name is
flushed. A new folder's name is flushed in its parent. What was reported as stored can then be found after a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

#: Folders whose names are known to be flushed.
_KNOWN = 4096
#: Errors of file systems that can't flush a folder, as some network mounts.
_UNABLE = {errno.EINVAL, errno.ENOTSUP}


@contextlib.contextmanager
def new_file(folder: Path | None = None, *, fd: int | None = None, mode: int = 0o666) -> Iterator[tuple[str, BinaryIO]]:
    """Open a new file of a random name in a folder, given by its path or descriptor; yield its path or name, and the file.

    It never opens a file or a link that is there already. The file is removed when the block ends, unless it was renamed.
    Raises OSError.
    """
    name = f".{secrets.token_hex(16)}.part"
    path = name if folder is None else str(folder / name)
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=fd)
    try:
        with open(opened, "w+b") as out:  # noqa: PTH123 - a descriptor
            yield path, out
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path, dir_fd=fd)


def flush_file(out: BinaryIO) -> None:
    """Flush a file's data to the disk. Raises OSError."""
    out.flush()
    os.fsync(out.fileno())


def flush_folder(folder: int) -> None:
    """Flush the names in a folder, given by its descriptor, to the disk. Raises OSError."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise


class DurableFolder:
    """A folder. Threads that flush it at the same time share one flush of the disk (group commit). Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counting, self._flushing = threading.Lock(), threading.Lock()
        self._asked = self._flushed = 0

    def flush(self) -> None:
        """Return when the names that are in the folder now are on the disk. Raises OSError."""
        with self._counting:
            self._asked += 1
            mine = self._asked
        with self._flushing:
            if self._flushed >= mine:  # a flush that began after this call has ended
                return
            covered = self._asked
            folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                flush_folder(folder)
            finally:
                os.close(folder)
            self._flushed = covered


class DurableTree:
    """The folders below a root, made on demand. Thread-safe."""

    def __init__(self, root: Path, *, mode: int = 0o777) -> None:
        """Make the root with its parents; `mode` is that of a new root. Raises OSError."""
        self._root = root
        self._folder = functools.lru_cache(_KNOWN)(self._made)
        missing = [folder for folder in (root, *root.parents) if not folder.is_dir()]
        for folder in reversed(missing):
            folder.mkdir(mode=mode if folder == root else 0o777, exist_ok=True)
            DurableFolder(folder.parent).flush()

    def folder(self, path: Path) -> DurableFolder:
        """Return a folder at or below the root; make it, with its parents, where it is missing. Raises OSError."""
        if not path.is_dir():  # new, or removed since
            self._folder.cache_clear()
        return self._folder(path)

    def _made(self, path: Path) -> DurableFolder:
        if path != self._root:
            parent = self._folder(path.parent)
            path.mkdir(exist_ok=True)
            parent.flush()  # also where another process has made it: that may not have flushed the name yet
        return DurableFolder(path)
