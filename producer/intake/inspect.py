"""Intake: from a source's bytes to its digest, kind and number of pages, or to one clear reason why not."""

from __future__ import annotations

import os
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, PageFaultError, PermanentError, Reason
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.base import Digest, Record, digest_of
from ocrfleet.records.documents import Kind, Source
from ocrfleet.sandbox.decoders import SNIFF_BYTES, sniff
from ocrfleet.sandbox.sandbox import Sandbox
from ocrfleet.sources.sources import Sources, is_file, path_of, sha256_of, uri_of
from producer.intake.discover import SUFFIXES

if TYPE_CHECKING:
    from ocrfleet.records.submissions import SourceReference
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

#: Seconds for which a fresh file is not trusted to be the same by its time alone: file systems count coarsely.
_RACY_SECONDS = 2.0
#: Seconds that counting a file's pages may take.
_DEADLINE = 120.0


class Seen(Record):
    """What a source was when it had this URI, size and time or ETag: spares reading it again."""

    schema_version: Literal[1] = 1
    sha256: Digest
    kind: Kind
    pages: int = Field(ge=1)


def index_of(wish: SourceReference) -> str:
    """Return the key under which it is remembered what a source that does not lie in a file was."""
    return keys.source_index(digest_of(wish.uri, wish.etag or "", wish.version or "", str(wish.size)))


class Intake:
    """Takes sources in. Untrusted bytes are opened in a sandbox; `close` ends it. Threads may share it, and its sandbox.

    Without a store nothing is remembered (a dry run).
    """

    def __init__(self, settings: Settings, store: ObjectStore | None, sources: Sources | None = None) -> None:
        self._store = store
        self._sources = sources or Sources(settings, store)
        self._passwords = settings.passwords()
        self._sandbox = Sandbox("producer.intake.probe", memory=settings.render_memory_mb << 20)

    def close(self) -> None:
        self._sandbox.close()

    def source(self, path: Path) -> Source:
        """Return what a file is. Raises PermanentError with the reason when it can't be read as a document."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise PermanentError(Reason.UNREADABLE, f"the file can't be opened: {error.strerror}") from error
        try:
            before = os.fstat(fd)
            uri = uri_of(path)
            index = keys.source_index(digest_of(uri, str(before.st_size), str(before.st_mtime_ns)))
            seen = self._remembered(index)
            if seen is None:
                seen = self._look(fd, path.name)
                after = os.fstat(fd)
                if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                    raise PermanentError(Reason.SOURCE_CHANGED, "the file changed while it was read; run again")
                if self._store is not None and time.time() - before.st_mtime > _RACY_SECONDS:
                    self._store.put(index, seen.to_bytes())
        except OSError as error:
            raise PermanentError(Reason.UNREADABLE, f"the file can't be read: {error.strerror}") from error
        finally:
            os.close(fd)
        return Source(
            uri=uri,
            size=before.st_size,
            mtime_ns=before.st_mtime_ns,
            sha256=seen.sha256,
            kind=seen.kind,
            pages=seen.pages,
        )

    def wished(self, wish: SourceReference) -> Source:
        """Return what somebody's source is. An object that was replaced since the wish is taken as it is now.

        Raises PermanentError with the reason when it can't be read as a document, OwnOutputError for what we wrote ourselves,
        TransientError and ConfigurationError when it can't be fetched.
        """
        if is_file(wish.uri):
            return self.source(path_of(wish.uri))
        try:
            return self._wished(self._sources.looked_up(wish))
        except PermanentError as error:
            if error.reason is not Reason.SOURCE_CHANGED:
                raise
            return self._wished(self._sources.looked_up(wish.model_copy(update={"etag": None})))

    def is_where_it_was(self, source: Source) -> bool:
        """Say whether a source still lies where it was registered, by its size and its time or ETag."""
        return self._sources.is_where_it_was(source)

    def _wished(self, wish: SourceReference) -> Source:
        index = index_of(wish)
        seen = self._remembered(index)
        if seen is None:
            with self._sources.fetched(wish) as fd:
                seen = self._look(fd, wish.name)
            if self._store is not None:
                self._store.put(index, seen.to_bytes())
        return Source(
            uri=wish.uri,
            size=wish.size,
            mtime_ns=0,
            etag=wish.etag,
            version=wish.version,
            sha256=seen.sha256,
            kind=seen.kind,
            pages=seen.pages,
        )

    def broken_page(self, path: Path) -> Source:
        """Return an image of a book that can't be read as a source of one page: the page fails, none shifts."""
        facts = path.stat() if path.exists() else None
        kind = SUFFIXES.get(path.suffix.lower(), Kind.TIFF)
        try:
            with path.open("rb") as stream:
                kind = sniff(stream.read(SNIFF_BYTES)) or kind
                sha256 = sha256_of(stream.fileno())
        except OSError:
            sha256 = digest_of("unreadable", uri_of(path))
        return Source(
            uri=uri_of(path),
            size=facts.st_size if facts else 0,
            mtime_ns=facts.st_mtime_ns if facts else 0,
            sha256=sha256,
            kind=kind,
            pages=1,
        )

    def _remembered(self, index: str) -> Seen | None:
        if self._store is None:
            return None
        try:
            return Seen.from_bytes(self._store.get(index))
        except (NotFoundError, DamagedRecordError):
            return None

    def _look(self, fd: int, name: str) -> Seen:
        size = os.fstat(fd).st_size
        if size == 0:
            raise PermanentError(Reason.EMPTY_FILE, "the file is empty (0 bytes); get it again from where it came")
        head = os.pread(fd, SNIFF_BYTES, 0)
        kind = sniff(head)
        if kind is None:
            suffix = PurePosixPath(name).suffix
            promise = f"the name ends in {suffix} but " if suffix else ""
            raise PermanentError(
                Reason.UNSUPPORTED, f"{promise}the bytes are those of no PDF and no image that is read"
            )
        try:
            answer = self._sandbox.call({"kind": kind, "passwords": list(self._passwords)}, fd=fd, deadline=_DEADLINE)
        except PageFaultError as error:
            metrics.RENDERER_CRASHES.labels(error.reason.value).inc()
            raise PermanentError(Reason.UNREADABLE, f"the file can't be opened: {error.detail}") from error
        return Seen(sha256=sha256_of(fd), kind=kind, pages=answer["pages"])
