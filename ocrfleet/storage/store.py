"""The object store. Keys are short paths of [A-Za-z0-9._-] made by keys.py, never names from outside."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from ocrfleet import keys
from ocrfleet.durable import DurableTree, flush_file, new_file
from ocrfleet.errors import ConfigurationError, NotFoundError, TransientError
from ocrfleet.metrics import definitions as metrics

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]*(/[A-Za-z0-9_][A-Za-z0-9._~-]*)*")


def is_key(text: str) -> bool:
    """Return whether a text is a valid key."""
    return _KEY.fullmatch(text) is not None


def check_content(key: str, data: bytes) -> None:
    """Raise ValueError when there is no content."""
    if not data:
        raise ValueError(f"an object has at least one byte: {key}")


#: Content of a marker, whose key carries the information: no object is empty.
MARK = b"."


class ObjectStore(Protocol):
    """Objects by key. Each call may raise TransientError when the store is away; repeating it is then harmless.

    An object has at least one byte; writing none raises ValueError. An empty object counts as missing: SeaweedFS creates one
    when a client dies between the headers and the body of a request, and it would never be written again.
    """

    def get(self, key: str) -> bytes:
        """Return an object's bytes. Raises NotFoundError."""

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading as a stream. Raises NotFoundError."""

    def exists(self, key: str) -> bool: ...

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole; replaces an existing one."""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none. Of several writers at once, one gets True."""

    def create_from(self, key: str, path: Path) -> bool:
        """Create an object, as `create` does, from a file that need not fit into memory."""

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""

    def list(self, prefix: str, *, after: str | None = None) -> Iterator[str]:
        """Yield the keys that start with `prefix` (which ends in a slash), ascending, those greater than `after`.

        Keys of one folder always ascend. Where a folder's name is a prefix of another's ("a", "a-b"), some S3 servers sort "a/"
        first, and not byte by byte as S3 does; `after` then continues after a key that was listed.
        """

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the next level below `prefix` (which ends in a slash) that have objects, ascending.

        Some S3 servers still return a folder for a while after its last object was removed.
        """

    def presigned(self, key: str, *, seconds: int, filename: str, content_type: str) -> str | None:
        """Return a URL by which anyone can download an object as a file for so many seconds; None where there are no URLs."""


class FolderStore:
    """An ObjectStore in a local folder: one file an object, written aside and renamed.

    Data is flushed to the disk before its name appears, so that a power cut leaves no incomplete object. The folder is flushed
    before a write returns, so that a power cut removes no object that was reported as stored, and before `delete` returns for
    objects that must not come back.
    """

    _TEMPORARY = ".tmp"

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._temporary = self._root / self._TEMPORARY
        try:
            self._tree = DurableTree(self._root, mode=0o700)
            self._temporary.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the store's folder {root} can't be made: {error.strerror}") from error

    def get(self, key: str) -> bytes:
        with self._reading(key), self._path(key).open("rb") as stream:
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        with self._reading(key):
            return self._path(key).open("rb")

    def exists(self, key: str) -> bool:
        try:
            with self._reading(key):
                return stat.S_ISREG(self._path(key).stat().st_mode)
        except NotFoundError:
            return False

    def put(self, key: str, data: bytes) -> None:
        check_content(key, data)
        path = self._path(key)
        with _writing(key), new_file(self._temporary) as (temporary, out):
            out.write(data)
            flush_file(out)
            folder = self._tree.folder(path.parent)
            Path(temporary).replace(path)
            folder.flush()

    def create(self, key: str, data: bytes) -> bool:
        check_content(key, data)
        return self._create(key, lambda out: out.write(data))

    def create_from(self, key: str, path: Path) -> bool:
        def copy(out: BinaryIO) -> None:
            with path.open("rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)

        return self._create(key, copy)

    def _create(self, key: str, write: Callable[[BinaryIO], object]) -> bool:
        path, there = self._path(key), self.exists(key)
        with _writing(key):
            if there:
                self._tree.folder(path.parent).flush()  # its writer may not have flushed it yet
                return False
            with new_file(self._temporary) as (temporary, out):
                write(out)
                flush_file(out)
                folder = self._tree.folder(path.parent)
                created = self._link(temporary, path)
                folder.flush()
                return created

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _writing(key):
            path.unlink(missing_ok=True)
            if keys.stays_removed(key) and path.parent.is_dir():
                self._tree.folder(path.parent).flush()

    def list(self, prefix: str, *, after: str | None = None) -> Iterator[str]:
        return (key for key in self._walk(prefix) if after is None or key > after)

    def folders(self, prefix: str) -> Sequence[str]:
        folder = self._path(prefix.rstrip("/"))
        try:
            with self._reading(prefix), os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir() and is_key(entry.name))
                return [name for name in names if _has_files(folder / name)]
        except NotFoundError:
            return []

    def presigned(self, key: str, *, seconds: int, filename: str, content_type: str) -> str | None:  # noqa: ARG002
        self._path(key)
        return None

    def clear_temporary(self) -> None:
        """Remove incomplete files of killed writers. Only while no other process writes."""
        for entry in os.scandir(self._temporary):
            with contextlib.suppress(OSError):
                Path(entry.path).unlink()

    def _walk(self, prefix: str) -> Iterator[str]:
        folder = self._path(prefix.rstrip("/"))
        try:
            with self._reading(prefix), os.scandir(folder) as entries:
                # A folder sorts with its slash, as its keys do: the order is that of S3. Names that are no keys are foreign files.
                names = sorted(entry.name + "/" * entry.is_dir() for entry in entries if is_key(entry.name))
        except NotFoundError:
            return
        for name in names:
            if name.endswith("/"):
                yield from self._walk(prefix + name)
            else:
                yield prefix + name

    def _path(self, key: str) -> Path:
        if not is_key(key):
            raise ValueError(f"not a key: {key!r}")
        return self._root / key

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if not self._temporary.is_dir():
                metrics.STORE_ERRORS.inc()
                raise TransientError(f"the store's folder {self._root} is gone: is it mounted?") from error
            raise NotFoundError(f"no object {key}") from error
        except OSError as error:
            metrics.STORE_ERRORS.inc()
            raise TransientError(f"the store can't be read ({key}): {error.strerror}") from error

    @staticmethod
    def _link(temporary: str, target: Path) -> bool:
        """Give a written file its name unless the name exists: link(2) decides a race, rename(2) would not."""
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK}:
                raise
            # A file system without hard links (exFAT, some network mounts): two writers at once may both win. That is
            # harmless: they write the same record or, for a page, an equivalent one.
            if target.exists():
                return False
            Path(temporary).replace(target)
        return True


def _has_files(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return any(entry.is_file() or _has_files(Path(entry.path)) for entry in entries)
    return False


@contextlib.contextmanager
def _writing(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # A full disk or a share that is away: it may pass.
        metrics.STORE_ERRORS.inc()
        raise TransientError(f"the store can't be written ({key}): {error.strerror}") from error
