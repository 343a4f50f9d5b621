"""Inspection of sources: digest, format and number of pages, or the reason why a source can't be read."""

from __future__ import annotations

import os
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, PageFaultError, PermanentError, Reason
from ocrfleet.metrics import definitions as metrics
from ocrfleet.metrics.confinement import check_confinement
from ocrfleet.records.base import Digest, Record, digest_of
from ocrfleet.records.documents import Kind, Source
from ocrfleet.sandbox.sniff import SNIFF_BYTES, sniff
from ocrfleet.sources.sources import Sources, is_file, path_of, sha256_of, uri_of
from producer.intake.discover import SUFFIXES
from producer.intake.probes import Probes

if TYPE_CHECKING:
    from ocrfleet.records.submissions import SourceReference
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

#: Seconds after its last change in which a file is not indexed: the clock of file systems is coarse.
_RACY_SECONDS = 2.0
#: Seconds that counting a file's pages may take, and the bytes of a large file for each further second: a damaged PDF is read
#: from end to end.
_DEADLINE, _BYTES_A_SECOND = 10.0, 100_000_000


class Seen(Record):
    """Index entry for a URI, size and time or ETag, so that the source is not read again."""

    schema_version: Literal[1] = 1
    sha256: Digest
    kind: Kind
    pages: int = Field(ge=1)


def index_of(reference: SourceReference) -> str:
    """Return the key of the index entry of a source that is not a local file."""
    return keys.source_index(
        digest_of(reference.uri, reference.etag or "", reference.version or "", str(reference.size))
    )


class Intake:
    """Inspects sources. Opens untrusted bytes in a sandbox, which `close` ends. Threads may share it.

    Without a store nothing is indexed (a dry run). Raises ConfigurationError when the sandbox may not be weaker than asked for.
    """

    def __init__(self, settings: Settings, store: ObjectStore | None, sources: Sources | None = None) -> None:
        check_confinement(settings)
        self._store = store
        self._sources = sources or Sources(settings, store)
        self._passwords = settings.passwords()
        self._probes = Probes(memory=settings.render_memory_mb << 20)

    def close(self) -> None:
        self._probes.close()

    def source(self, path: Path, *, client: str = "") -> Source:
        """Inspect a local file for a client. Raises PermanentError with the reason when it can't be read as a document."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise PermanentError(Reason.UNREADABLE, f"the file can't be opened: {error.strerror}") from error
        try:
            before = os.fstat(fd)
            uri = uri_of(path)
            index = keys.source_index(digest_of(uri, str(before.st_size), str(before.st_mtime_ns)))
            seen = self._indexed(index)
            if seen is None:
                seen = self._read(fd, path.name, client)
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

    def inspect(self, reference: SourceReference, *, client: str = "", largest: int | None = None) -> Source:
        """Inspect a source that a client submitted. An object that was replaced since is read in its present version.

        One of more than `largest` bytes is not fetched. Raises PermanentError with the reason when it can't be read as a document,
        OwnOutputError for a delivered result, TransientError and ConfigurationError when it can't be fetched.
        """
        if is_file(reference.uri):
            return self.source(path_of(reference.uri), client=client)
        try:
            return self._inspect(self._sources.looked_up(reference), client, largest)
        except PermanentError as error:
            if error.reason is not Reason.SOURCE_CHANGED:
                raise
            return self._inspect(self._sources.looked_up(reference.model_copy(update={"etag": None})), client, largest)

    def is_where_it_was(self, source: Source) -> bool:
        """Return whether a source is still where it was registered, by its size and its time or ETag."""
        return self._sources.is_where_it_was(source)

    def _inspect(self, reference: SourceReference, client: str, largest: int | None) -> Source:
        if largest is not None and reference.size > largest:
            raise PermanentError(
                Reason.TOO_LARGE, f"the file has {reference.size} bytes, and {largest} are allowed: split it"
            )
        index = index_of(reference)
        seen = self._indexed(index)
        if seen is None:
            with self._sources.fetched(reference) as fd:
                seen = self._read(fd, reference.name, client)
            if self._store is not None:
                self._store.put(index, seen.to_bytes())
        return Source(
            uri=reference.uri,
            size=reference.size,
            mtime_ns=0,
            etag=reference.etag,
            version=reference.version,
            sha256=seen.sha256,
            kind=seen.kind,
            pages=seen.pages,
        )

    def broken_page(self, path: Path) -> Source:
        """Return a source of one page for an unreadable image of a book: the page fails, and the others keep their numbers."""
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

    def _indexed(self, index: str) -> Seen | None:
        if self._store is None:
            return None
        try:
            return Seen.from_bytes(self._store.get(index))
        except (NotFoundError, DamagedRecordError):
            return None

    def _read(self, fd: int, name: str, client: str) -> Seen:
        size = os.fstat(fd).st_size
        if size == 0:
            raise PermanentError(Reason.EMPTY_FILE, "the file is empty (0 bytes); get it again from where it came")
        head = os.pread(fd, SNIFF_BYTES, 0)
        kind = sniff(head)
        if kind is None:
            suffix = PurePosixPath(name).suffix
            promise = f"the name ends in {suffix} but " if suffix else ""
            raise PermanentError(
                Reason.UNSUPPORTED, f"{promise}the file is neither a PDF nor an image of a supported format"
            )
        try:
            deadline = _DEADLINE + size / _BYTES_A_SECOND
            with self._probes.taken(client) as sandbox:
                answer = sandbox.call({"kind": kind}, fd=fd, deadline=deadline, passwords=self._passwords)
        except PageFaultError as error:
            metrics.RENDERER_CRASHES.labels(error.reason.value).inc()
            raise PermanentError(Reason.UNREADABLE, f"the file can't be opened: {error.detail}") from error
        return Seen(sha256=sha256_of(fd), kind=kind, pages=answer["pages"])
