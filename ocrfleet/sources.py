"""Source files: how they are named, opened and known to be unchanged. They are referenced, never copied or written."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.jobs import Source


def uri_of(path: Path) -> str:
    """Return the file:// URI of a path, every byte of its name kept."""
    return path.absolute().as_uri()


def path_of(uri: str) -> Path:
    """Return the path of a file:// URI made by `uri_of`."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))


@contextmanager
def opened(source: Source) -> Iterator[int]:
    """Open a source for reading, as a file descriptor, and make sure that it is what was registered.

    Raises PermanentError when it is gone or has changed, also when it changes before the block ends.
    """
    path = path_of(source.uri)
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise PermanentError(
            Reason.SOURCE_MISSING, f"the source can't be opened any more: {error.strerror}; put it back and run again"
        ) from error
    try:
        before = os.fstat(fd)
        untouched = (before.st_size, before.st_mtime_ns) == (source.size, source.mtime_ns)
        if not untouched and _sha256_at(path, before.st_size, before.st_mtime_ns) != source.sha256:
            raise _changed()
        try:
            yield fd
        except PermanentError as error:  # what is wrong with it may be that it changes just now
            if _touched(fd, before):
                raise _changed() from error
            raise
        if _touched(fd, before):
            raise _changed()
    finally:
        os.close(fd)


def _touched(fd: int, before: os.stat_result) -> bool:
    after = os.fstat(fd)
    return (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns)


def is_where_it_was(source: Source) -> bool:
    """Say whether a source's file has the size and time that it was registered with; its bytes are not read."""
    try:
        facts = path_of(source.uri).stat()
    except OSError:
        return False
    return (facts.st_size, facts.st_mtime_ns) == (source.size, source.mtime_ns)


def sha256_of(fd: int) -> str:
    """Return the SHA-256 (hex) of a file's bytes, read from its beginning."""
    with open(fd, "rb", closefd=False) as stream:
        stream.seek(0)
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.lru_cache(maxsize=256)
def _sha256_at(path: Path, _size: int, _mtime_ns: int) -> str:
    """Hash a file that was touched once, not once for each of its pages."""
    with path.open("rb") as stream:
        return sha256_of(stream.fileno())


def _changed() -> PermanentError:
    return PermanentError(
        Reason.SOURCE_CHANGED, "the source changed after it was registered; run again to have the new one read"
    )
