"""Sources: URIs, opening, and checks that they are unchanged. They are referenced and read, never written.

file:///…              a file, read in place
s3://bucket/key        an object in S3, through the cache of this machine
store:uploads/<sha256> an upload, in the object store
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
from ocrfleet.s3.location import SCHEME
from ocrfleet.sources.cache import SourceCache
from ocrfleet.sources.reference import ObjectReference, changed, gone
from ocrfleet.storage.store import FolderStore, is_key

if TYPE_CHECKING:
    import io

    from ocrfleet.settings import Settings
    from ocrfleet.sources.s3 import S3Sources
    from ocrfleet.storage.store import ObjectStore

FILE = "file://"
STORED = "store:"
#: Metadata of objects in S3 that ocrfleet has written: they are never taken for sources.
OWN_OUTPUT = "ocrfleet"
_CHUNK = 1 << 20


class OwnOutputError(OcrfleetError):
    """The source is an output of ocrfleet: its own output would become the next source, and so on."""


def uri_of(path: Path) -> str:
    """Return the file:// URI of a path; each byte of its name is kept."""
    return path.absolute().as_uri()


def path_of(uri: str) -> Path:
    """Return the path of a file:// URI made by `uri_of`."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE))))


def sha256_of(fd: int) -> str:
    """Return the SHA-256 (hex) of a file's bytes.

    Each read names its offset: the descriptor's position is shared with the sandboxed process that got the document.
    """
    sha, offset = hashlib.sha256(), 0
    while chunk := os.pread(fd, _CHUNK, offset):
        sha.update(chunk)
        offset += len(chunk)
    return sha.hexdigest()


class Sources:
    """Opens sources from files, S3 and uploads. Thread-safe.

    `store` has the uploads; without it, uploads are missing. Each call may raise TransientError when the place of the source
    is away or the cache's disk is full, and ConfigurationError for what a person must correct first.
    """

    def __init__(self, settings: Settings, store: ObjectStore | None) -> None:
        self._settings = settings
        self._store = store

    @contextmanager
    def opened(self, source: Source) -> Iterator[int]:
        """Open a source for reading, as a file descriptor, and check that it is unchanged since its registration.

        Raises PermanentError when it is gone or has changed; for a file, also when it changes before the block ends.
        """
        with _opened_file(source) if is_file(source.uri) else self._held(source, source.sha256) as fd:
            yield fd

    def fetched(self, reference: SourceReference) -> AbstractContextManager[int]:
        """Open a submitted source in S3, or an upload, as a file descriptor, before it is registered.

        Raises PermanentError when it is gone or differs from the reference, OwnOutputError for an output of ocrfleet.
        """
        return self._held(reference, None)

    def looked_up(self, reference: SourceReference) -> SourceReference:
        """Return a reference with the present size, ETag and version of its object in S3, where it has no ETag.

        Raises PermanentError when the object is gone, OwnOutputError for an output of ocrfleet.
        """
        if reference.etag is not None or not reference.uri.startswith(SCHEME):
            return reference
        facts = self._s3.info(_reference(reference))
        _refuse_own(facts.metadata)
        return reference.model_copy(update={"size": facts.size, "etag": facts.etag, "version": facts.version})

    def is_where_it_was(self, source: Source) -> bool:
        """Return whether the source still has its registered size, and time or ETag, without reading it."""
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
        """Open a source that is not a local file; `sha256` is the digest that its bytes must have."""
        if wanted.uri.startswith(STORED):
            fetch = functools.partial(self._fetch_upload, wanted, sha256)
            if isinstance(self._store, FolderStore):
                with self._upload(wanted) as stream:
                    if os.fstat(stream.fileno()).st_size != wanted.size:
                        raise changed()
                    yield stream.fileno()
                return
        elif wanted.uri.startswith(SCHEME):
            fetch = functools.partial(self._fetch_object, wanted, sha256)
        else:
            raise PermanentError(
                Reason.UNSUPPORTED, "a source must be a file, s3://bucket/key, or have been sent to us"
            )
        name = digest_of(wanted.uri, wanted.etag or "", wanted.version or "")
        with self._cache.held(name, fetch, size=wanted.size) as fd:
            yield fd

    @functools.cached_property
    def _s3(self) -> S3Sources:
        """The client of S3, imported at its first use: boto3 takes half a second, and local files need none."""
        from ocrfleet.sources.s3 import S3Sources  # noqa: PLC0415

        return S3Sources(self._settings.s3)

    @functools.cached_property
    def _cache(self) -> SourceCache:
        """The cache, created at the first fetch: local files need none."""
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
                Reason.SOURCE_MISSING, "the upload has been removed meanwhile; send it again"
            ) from error
        with closing(stream):
            yield stream


def is_file(uri: str) -> bool:
    """Return whether a URI names a local file."""
    return uri.startswith(FILE)


def uri_of_upload(sha256: str) -> str:
    """Return the URI of an upload, which is in the store under keys.upload."""
    return f"{STORED}{keys.upload(sha256)}"


def _upload(wanted: Source | SourceReference) -> str:
    """Return the key of an upload. No other object of the store is a source."""
    key = wanted.uri.removeprefix(STORED)
    if not (key.startswith(keys.UPLOADS) and is_key(key)):
        raise gone()
    return key


def _reference(wanted: Source | SourceReference) -> ObjectReference:
    return ObjectReference(wanted.uri, wanted.etag, wanted.version)


def is_own(metadata: Mapping[str, str]) -> bool:
    """Return whether an object with this metadata was written by ocrfleet."""
    return OWN_OUTPUT in map(str.lower, metadata)  # servers return names in different cases


def _refuse_own(metadata: Mapping[str, str]) -> None:
    if is_own(metadata):
        raise OwnOutputError("it is a result of ours, and no source")


def _copy(stream: BinaryIO | io.RawIOBase, out: BinaryIO, *, size: int, sha256: str | None) -> None:
    """Copy a source's bytes. Raises PermanentError when they differ from the registered ones."""
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
        except PermanentError as error:  # the cause may be that the file is being changed
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
    """Return the digest of a file whose time has changed, computed once and not for each page."""
    with path.open("rb") as stream:
        return sha256_of(stream.fileno())
