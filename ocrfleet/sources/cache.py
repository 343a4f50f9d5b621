"""Source cache: fetched files in a folder that all processes of a machine share.

    <name>         a complete file; its readers have a shared lock (flock) on it
    <name>.part    a file that is being fetched; its writer has an exclusive lock on it
    total          bytes of all files, or slightly more; guarded by a lock on the folder

The kernel releases the locks of a process however it ends: files of killed processes have none.
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
#: Share of the limit that eviction frees in addition, so that not each new file has to scan the folder.
_ROOM = 0.1
#: Block size in bytes: sizes of files are rounded up to it.
_BLOCK = 4096
#: Seconds after which a fetch by another process that does not progress counts as hung.
_SILENCE = 300.0
#: Seconds between two checks for a file that another process fetches.
_POLL = 0.05
_FULL = {errno.ENOSPC, errno.EDQUOT}


class SourceCache:
    """A cache of files by name, a hex digest. Thread-safe, and safe between processes.

    It takes `max_bytes` of the disk; more only while more is in use.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Create the folder, and remove files of killed processes. Raises ConfigurationError if other users may write to it."""
        self._folder = folder.absolute()
        self._max_bytes = max_bytes
        with self._usable():
            self._make_folder()
            with self._alone():
                self._note(self._evict(max_bytes))

    @contextmanager
    def held(self, name: str, fetch: Callable[[BinaryIO], None], *, size: int = 0) -> Iterator[int]:
        """Open a file and keep it in the cache while the block runs; yields its descriptor.

        A missing file is written by `fetch`; `size` is its expected size in bytes. Of several callers at once, one fetches while
        the others wait; if it fails, the next one tries. Raises what `fetch` raises, and TransientError when the disk is full
        or the folder can't be used.
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
            with suppress(OSError):  # the file was read all the same
                self._account(0)  # it may have been kept only because it was in use

    def _open(self, name: str) -> int | None:
        """Open a complete file, with a lock that keeps it from eviction; None when it is missing."""
        path = self._folder / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        fcntl.flock(fd, fcntl.LOCK_SH)  # waits only for a check whether it is in use
        if not _is_at(path, fd):
            os.close(fd)
            return None
        now = time.time_ns()
        os.utime(fd, ns=(now, now))
        return fd

    def _fetched(self, name: str, fetch: Callable[[BinaryIO], None], size: int) -> int | None:
        """Fetch a file and open it, or wait until another process has; None when the caller should try again."""
        part = self._folder / (name + _PART)
        with self._turn(part) as writer:
            if writer is None:
                return self._open(name)
            there = self._open(name)  # completed before this process got the lock
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
                os.fsync(writer)  # otherwise a power cut may leave a name without content
                reader = os.open(part, os.O_RDONLY | os.O_NOFOLLOW)
            except BaseException:
                part.unlink(missing_ok=True)
                self._account(-_taken(reserved))
                raise
            part.rename(self._folder / name)
        # If it was evicted in between, it can be read all the same.
        fcntl.flock(reader, fcntl.LOCK_SH)
        self._account(_taken(os.fstat(reader).st_size) - _taken(reserved))
        return reader

    @contextmanager
    def _turn(self, part: Path) -> Iterator[int | None]:
        """Wait until no other process fetches a file; yield a descriptor to write it, None when another one has ended.

        Raises TransientError when the fetch of another process does not progress.
        """
        self._make_folder()  # it may have been removed meanwhile
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
        """Add to the bytes of all files, and evict files beyond the limit."""
        with self._alone():
            total = noted = self._noted()
            if total is not None:
                total += more
            if total is None or total > self._max_bytes:
                total = self._evict(self._max_bytes)
            if total != noted:
                self._note(total)

    def _evict(self, most: int) -> int:
        """Remove files of killed processes, and the least recently used files beyond `most` bytes.

        Return the bytes that are left. Only with the lock on the folder.
        """
        total, files = 0, []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name.removesuffix(_PART)
                if not _NAME.fullmatch(name):
                    continue
                with suppress(FileNotFoundError):  # it was renamed or removed
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
        """Return the recorded bytes of all files; None without a valid record."""
        try:
            return int((self._folder / _TOTAL).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):  # its writer was killed
            return None

    def _note(self, total: int) -> None:
        (self._folder / _TOTAL).write_text(str(total), encoding="ascii")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock on the folder while the block runs."""
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
                f"the cache's folder {self._folder} must be a folder that only this user may write to, and no link: "
                "others could add files that are read as sources. Remove it, or set OCRFLEET_CACHE to a folder of your own"
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
    """Return the bytes that a file of this size takes on the disk."""
    return max(1, -(-size // _BLOCK)) * _BLOCK


def _locked(fd: int) -> bool:
    """Try to get an exclusive lock; return whether it was free."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path | str, fd: int) -> bool:
    """Return whether an open file still has this path."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def _removed(path: str) -> bool:
    """Remove a file unless it is locked; return whether it is gone."""
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
