"""Sources: how they are named, opened and known to be unchanged. They are referenced and read, never written to.

file:///…              a file, read where it lies
s3://bucket/key        an object of somebody's, through the cache of this machine
store:uploads/<sha256> what was sent to us, in our own object store
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote_to_bytes

from ocrfleet import keys
from ocrfleet.errors import NotFoundError, OcrfleetError, PermanentError, Reason
from ocrfleet.records.base import digest_of
from ocrfleet.records.documents import Source
from ocrfleet.records.submissions import SourceReference
from ocrfleet.s3 import client as s3
from ocrfleet.sources.cache import SourceCache
from ocrfleet.sources.s3 import ObjectReference, S3Sources, changed, gone
from ocrfleet.storage.store import FolderStore, is_key

if TYPE_CHECKING:
    import io

    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

FILE = "file://"
STORED = "store:"
#: Metadata of objects in S3 by which we know what we wrote ourselves, wherever it lies.
OWN_OUTPUT = "ocrfleet"
_CHUNK = 1 << 20


class OwnOutputError(OcrfleetError):
    """A source is something that we wrote ourselves: to read it would give another one, and so on."""


def uri_of(path: Path) -> str:
    """Return the file:// URI of a path, every byte of its name kept."""
    return path.absolute().as_uri()


def path_of(uri: str) -> Path:
    """Return the path of a file:// URI made by `uri_of`."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE))))


def sha256_of(fd: int) -> str:
    """Return the SHA-256 (hex) of a file's bytes, read from its beginning."""
    with open(fd, "rb", closefd=False) as stream:
        stream.seek(0)
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Sources:
    """Opens sources, wherever they lie. Threads may share it.

    `store` has what was sent to us; without one such sources are missing. Each call may raise TransientError when what has
    the source is away, or the cache's disk is full, and ConfigurationError for what a person must change first.
    """

    def __init__(self, settings: Settings, store: ObjectStore | None) -> None:
        self._settings = settings
        self._store = store
        self._s3 = S3Sources(settings.s3)

    @contextmanager
    def opened(self, source: Source) -> Iterator[int]:
        """Open a source for reading, as a file descriptor, and make sure that it is what was registered.

        Raises PermanentError when it is gone or has changed, a file also when it changes before the block ends.
        """
        with _opened_file(source) if is_file(source.uri) else self._held(source, source.sha256) as fd:
            yield fd

    def fetched(self, wish: SourceReference) -> AbstractContextManager[int]:
        """Open what somebody wants read, which lies in S3 or was sent to us, as a file descriptor.

        Raises PermanentError when it is gone or is not, or no longer, what the wish says, OwnOutputError.
        """
        return self._held(wish, None)

    def looked_up(self, wish: SourceReference) -> SourceReference:
        """Return a wish with the size, ETag and version that its object in S3 has now, where it does not say which it means.

        Raises PermanentError when the object is gone, OwnOutputError.
        """
        if wish.etag is not None or not wish.uri.startswith(s3.SCHEME):
            return wish
        facts = self._s3.info(_reference(wish))
        _refuse_own(facts.metadata)
        return wish.model_copy(update={"size": facts.size, "etag": facts.etag, "version": facts.version})

    def is_where_it_was(self, source: Source) -> bool:
        """Say whether there is something with the size and the time or ETag that it was registered with; it isn't read."""
        try:
            if is_file(source.uri):
                facts = path_of(source.uri).stat()
                return (facts.st_size, facts.st_mtime_ns) == (source.size, source.mtime_ns)
            if source.uri.startswith(STORED):
                return self._store is not None and self._store.exists(_upload(source))
            return self._s3.info(_reference(source)).size == source.size
        except (OSError, PermanentError):
            return False

    @contextmanager
    def _held(self, wanted: Source | SourceReference, sha256: str | None) -> Iterator[int]:
        """Open what does not lie in a file of this machine; `sha256` is what its bytes must have."""
        if wanted.uri.startswith(STORED):
            fetch = functools.partial(self._fetch_upload, wanted, sha256)
            if isinstance(self._store, FolderStore):
                with self._upload(wanted) as stream:
                    if os.fstat(stream.fileno()).st_size != wanted.size:
                        raise changed()
                    yield stream.fileno()
                return
        elif wanted.uri.startswith(s3.SCHEME):
            fetch = functools.partial(self._fetch_object, wanted, sha256)
        else:
            raise PermanentError(
                Reason.UNSUPPORTED, "a source must be a file, s3://bucket/key, or have been sent to us"
            )
        name = digest_of(wanted.uri, wanted.etag or "", wanted.version or "")
        with self._cache.held(name, fetch, size=wanted.size) as fd:
            yield fd

    @functools.cached_property
    def _cache(self) -> SourceCache:
        """The cache, once something is to be fetched: few who read local files want such a folder."""
        return SourceCache(self._settings.cache, self._settings.cache_mb << 20)

    def _fetch_object(self, wanted: Source | SourceReference, sha256: str | None, out: BinaryIO) -> None:
        with self._s3.reading(_reference(wanted)) as reader:
            if sha256 is None:
                _refuse_own(reader.metadata)
            if reader.size != wanted.size:
                raise changed()
            _copy(reader, out, size=wanted.size, sha256=sha256)

    def _fetch_upload(self, wanted: Source | SourceReference, sha256: str | None, out: BinaryIO) -> None:
        with self._upload(wanted) as stream:
            _copy(stream, out, size=wanted.size, sha256=sha256)

    @contextmanager
    def _upload(self, wanted: Source | SourceReference) -> Iterator[BinaryIO]:
        if self._store is None:
            raise gone()
        try:
            stream = self._store.open(_upload(wanted))
        except NotFoundError as error:
            raise PermanentError(
                Reason.SOURCE_MISSING, "what was sent to us has been removed meanwhile; send it again"
            ) from error
        with closing(stream):
            yield stream


def is_file(uri: str) -> bool:
    """Say whether a URI is that of a file of this machine."""
    return uri.startswith(FILE)


def uri_of_upload(sha256: str) -> str:
    """Return the URI of what was sent to us and lies in the store under keys.upload."""
    return f"{STORED}{keys.upload(sha256)}"


def _upload(wanted: Source | SourceReference) -> str:
    """Return the key of what was sent to us. No other object of the store is a source."""
    key = wanted.uri.removeprefix(STORED)
    if not (key.startswith(keys.UPLOADS) and is_key(key)):
        raise gone()
    return key


def _reference(wanted: Source | SourceReference) -> ObjectReference:
    return ObjectReference(wanted.uri, wanted.etag, wanted.version)


def is_own(metadata: Mapping[str, str]) -> bool:
    """Say whether an object with this metadata was written by us."""
    return OWN_OUTPUT in map(str.lower, metadata)  # servers don't agree in which letters they give it back


def _refuse_own(metadata: Mapping[str, str]) -> None:
    if is_own(metadata):
        raise OwnOutputError("it is a result of ours, and no source")


def _copy(stream: BinaryIO | io.RawIOBase, out: BinaryIO, *, size: int, sha256: str | None) -> None:
    """Copy a source's bytes. Raises PermanentError when they are not those that were registered."""
    sha, there = hashlib.sha256(), 0
    while chunk := stream.read(_CHUNK):
        out.write(chunk)
        there += len(chunk)
        if sha256 is not None:
            sha.update(chunk)
    if there != size or (sha256 is not None and sha.hexdigest() != sha256):
        raise changed()


@contextmanager
def _opened_file(source: Source) -> Iterator[int]:
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
            raise changed()
        try:
            yield fd
        except PermanentError as error:  # what is wrong with it may be that it changes just now
            if _touched(fd, before):
                raise changed() from error
            raise
        if _touched(fd, before):
            raise changed()
    finally:
        os.close(fd)


def _touched(fd: int, before: os.stat_result) -> bool:
    after = os.fstat(fd)
    return (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256_at(path: Path, _size: int, _mtime_ns: int) -> str:
    """Hash a file that was touched once, not once for each of its pages."""
    with path.open("rb") as stream:
        return sha256_of(stream.fileno())
