"""Files that were fetched from afar, kept in a folder that all processes of a machine share.

    <name>         a file that is whole; whoever reads it has a shared lock (flock) on it
    <name>.part    one that is being fetched; whoever fetches it has an exclusive lock on it
    total          bytes that all of them take, or a few more; the folder's own lock guards it

Locks end with the process that has them, however it ends: what a killed one leaves is known by having none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ocrfleet.errors import ConfigurationError, TransientError

_NAME = re.compile(r"[0-9a-f]{32,64}")
_PART = ".part"
_TOTAL = "total"
#: Eviction goes on until there is room for some more, so that not every file that comes looks through the folder.
_ROOM = 0.1
#: Bytes that a file takes at least, and is rounded up to.
_BLOCK = 4096
#: Seconds after which a file that does not grow is waited for no more: whoever fetches it may hang.
_SILENCE = 300.0
#: Seconds between two looks whether a file has come.
_POLL = 0.05
_FULL = {errno.ENOSPC, errno.EDQUOT}


class SourceCache:
    """A cache of files by name, a hex digest. Threads and processes may share it.

    It takes `max_bytes` of the disk; more only while more is in use.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Make the folder, and remove what killed processes left. Raises ConfigurationError if others may write to it."""
        self._folder = folder.absolute()
        self._max_bytes = max_bytes
        with self._usable():
            self._make_folder()
            with self._alone():
                self._note(self._evict(max_bytes))

    @contextmanager
    def held(self, name: str, fetch: Callable[[BinaryIO], None], *, size: int = 0) -> Iterator[int]:
        """Open a file for reading, and keep it while the block runs; yield its descriptor.

        One that isn't there is fetched: `fetch` writes it, `size` bytes as far as is known. Of many that want it at once, one
        does so while the others wait; where it fails, the next one tries. Raises what `fetch` raises, and TransientError when
        the disk is full or the folder can't be used.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"not the name of a cached file: {name!r}")
        with self._usable():
            fd = self._open(name)
            while fd is None:
                fd = self._fetched(name, fetch, size)
        try:
            yield fd
        finally:
            os.close(fd)
            with suppress(OSError):  # what was read is read
                self._account(0)  # it may have been spared from eviction only because it was in use

    def _open(self, name: str) -> int | None:
        """Open a file that is whole, with a lock that spares it from eviction; None when it isn't there."""
        path = self._folder / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        fcntl.flock(fd, fcntl.LOCK_SH)  # waits at most for somebody who looks whether it is in use
        if not _is_at(path, fd):
            os.close(fd)
            return None
        now = time.time_ns()
        os.utime(fd, ns=(now, now))
        return fd

    def _fetched(self, name: str, fetch: Callable[[BinaryIO], None], size: int) -> int | None:
        """Fetch a file and open it, or wait until somebody else has; None when it is to be looked for again."""
        part = self._folder / (name + _PART)
        with self._turn(part) as writer:
            if writer is None:
                return self._open(name)
            there = self._open(name)  # made after it was looked for, before this one's turn
            if there is not None:
                part.unlink(missing_ok=True)
                return there
            reserved = min(size, self._max_bytes)
            try:
                os.truncate(writer, reserved)
                self._account(_taken(reserved))
                with open(writer, "wb", closefd=False) as stream:
                    fetch(stream)
                    stream.truncate()
                os.fsync(writer)  # else a power cut may leave a name with nothing behind it
                reader = os.open(part, os.O_RDONLY | os.O_NOFOLLOW)
            except BaseException:
                part.unlink(missing_ok=True)
                self._account(-_taken(reserved))
                raise
            part.rename(self._folder / name)
        # Evicted between these two, it is read all the same.
        fcntl.flock(reader, fcntl.LOCK_SH)
        self._account(_taken(os.fstat(reader).st_size) - _taken(reserved))
        return reader

    @contextmanager
    def _turn(self, part: Path) -> Iterator[int | None]:
        """Wait until nobody else fetches a file; yield the descriptor to write it to, None when somebody else has ended.

        Raises TransientError when whoever fetches it gets nothing for long.
        """
        self._make_folder()  # somebody may have tidied up where it lies
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            while _is_at(part, fd) and not _locked(fd):
                if time.time() - os.fstat(fd).st_mtime > _SILENCE:
                    raise TransientError(
                        f"the source is being fetched by another process of this machine, which got nothing for {_SILENCE:g} s: "
                        "to be tried again; does that process hang?"
                    )
                time.sleep(_POLL * random.uniform(0.5, 1.5))  # noqa: S311 - a pause
            if _is_at(part, fd):
                os.utime(fd)
                yield fd
            else:
                yield None
        finally:
            os.close(fd)

    def _account(self, more: int) -> None:
        """Note that files take so many bytes more than before, and evict some when that is too much."""
        with self._alone():
            total = noted = self._noted()
            if total is not None:
                total += more
            if total is None or total > self._max_bytes:
                total = self._evict(self._max_bytes)
            if total != noted:
                self._note(total)

    def _evict(self, most: int) -> int:
        """Remove leftovers, and while there are more than `most` bytes the files that were not used for longest.

        Return the bytes that are left. Only for whoever is alone.
        """
        total, files = 0, []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name.removesuffix(_PART)
                if not _NAME.fullmatch(name):
                    continue
                with suppress(FileNotFoundError):  # it was renamed, or given up
                    facts = entry.stat(follow_symlinks=False)
                    whole = entry.name == name
                    if not whole and _removed(entry.path):
                        continue
                    total += _taken(facts.st_size)
                    if whole:
                        files.append((facts.st_mtime_ns, _taken(facts.st_size), entry.path))
        if total <= most:
            return total
        for _, size, path in sorted(files):
            if total <= most * (1 - _ROOM):
                break
            if _removed(path):
                total -= size
        return total

    def _noted(self) -> int | None:
        """Return the bytes that all files take; None when nobody knows."""
        try:
            return int((self._folder / _TOTAL).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):  # whoever wrote it was killed
            return None

    def _note(self, total: int) -> None:
        (self._folder / _TOTAL).write_text(str(total), encoding="ascii")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one who looks after the folder while the block runs."""
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = self._folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise ConfigurationError(
                f"the cache's folder {self._folder} must be a folder of this user that nobody else may write to, and no link: "
                "others could put in what is read as a source. Remove it, or set OCRFLEET_CACHE to a folder of your own"
            )

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                with suppress(OSError), self._alone():
                    self._note(self._evict(0))
                raise TransientError(
                    f"the disk of the cache {self._folder} is full: free some of it, or set OCRFLEET_CACHE_MB to less or "
                    "OCRFLEET_CACHE to another disk's folder"
                ) from error
            raise TransientError(
                f"the cache {self._folder} can't be used ({error.strerror}): look at that folder, or set OCRFLEET_CACHE to another"
            ) from error


def _taken(size: int) -> int:
    """Return how much of the disk a file of this size takes."""
    return max(1, -(-size // _BLOCK)) * _BLOCK


def _locked(fd: int) -> bool:
    """Say whether an exclusive lock could be had at once."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path | str, fd: int) -> bool:
    """Say whether an open file is still the one that has this path."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def _removed(path: str) -> bool:
    """Remove a file that nobody has a lock on; say whether it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        if not _locked(fd) or not _is_at(path, fd):
            return False
        os.unlink(path)  # noqa: PTH108 - it comes as a text from os.scandir
        return True
    finally:
        os.close(fd)
