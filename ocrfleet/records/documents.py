"""The contract between producers and workers: what is stored and what is sent.

Everything here is frozen, JSON, and carries `schema_version`. A page is addressed by its 1-based number in its
document; a document is one source, or several images in order, so page numbers run through all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.base import Digest, DocumentId, Generation, Moment, PageNumber, Priority, Record, digest_of


class Kind(StrEnum):
    """What a source is, told by its bytes and never by its name."""

    PDF = "pdf"
    PNG = "png"
    JPEG = "jpeg"
    TIFF = "tiff"
    WEBP = "webp"
    BMP = "bmp"
    JPEG2000 = "jpeg2000"


class Source(Record):
    """A file that is referenced, not copied. `size` with `mtime_ns` or `etag` tells cheaply whether it changed.

    `sha256` is what it was.
    """

    #: file:///…, s3://bucket/key or store:key (uploaded to our own store), percent-encoded: any name survives JSON
    uri: str
    size: int
    #: when it was changed last; 0 where an `etag` tells
    mtime_ns: int
    etag: str | None = None
    #: of a bucket that keeps versions
    version: str | None = None
    sha256: Digest
    kind: Kind
    #: pages of a PDF, frames of an image
    pages: int = Field(ge=1)


class Problem(Record):
    """Why a document could not be taken in."""

    reason: Reason
    detail: str


class Manifest(Record):
    """All that a worker must know of a document; written before any job of it exists. Only where a source lies may change.

    A document that could not be taken in has no sources, no pages and a `problem`: it terminates as `failed` on the
    same road as any other.
    """

    schema_version: Literal[1] = 1
    document: DocumentId
    #: when it was registered first
    created: Moment
    profile: str
    profile_digest: Digest
    sources: tuple[Source, ...] = ()
    #: inclusive ranges of the page numbers asked for, ascending and apart; all pages when the document has no selection
    selection: tuple[tuple[PageNumber, PageNumber], ...] = ()
    problem: Problem | None = None

    @property
    def total(self) -> int:
        """Number of pages that must end accounted for."""
        return sum(last - first + 1 for first, last in self.selection)

    def pages(self) -> Iterator[int]:
        for first, last in self.selection:
            yield from range(first, last + 1)

    def locate(self, page: int) -> tuple[int, int]:
        """Return (index of the source, 0-based index of the page in it). Raises PermanentError for a page beyond the end."""
        index = page - 1
        for number, source in enumerate(self.sources):
            if index < source.pages:
                return number, index
            index -= source.pages
        raise PermanentError(Reason.NO_SUCH_PAGES, f"page {page} is beyond the document's end")


class DocumentStatus(StrEnum):
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Failure(Record):
    page: PageNumber
    reason: Reason
    detail: str


class Output(Record):
    """A stored output, with the hash that tells a reader that it is whole."""

    key: str
    sha256: Digest
    size: int


class Status(Record):
    """How a document ended, in one generation. Written once and last: its outputs exist when it does."""

    schema_version: Literal[1] = 1
    document: DocumentId
    generation: Generation
    status: DocumentStatus
    total: int
    done: int
    blank: int = 0
    #: pages whose text is the PDF's own: no engine read them
    text_layer: int = 0
    #: pictures that were cut out of the pages
    figures: int = 0
    failures: tuple[Failure, ...] = ()
    problem: Problem | None = None
    #: by format: md, json
    outputs: dict[str, Output]


class Marker(Record):
    """What the sweep needs to know of a document that waits or is active, without reading anything else."""

    schema_version: Literal[1] = 1
    generation: Generation
    queue: Priority
    collection: str
    profile: str
    profile_digest: Digest
    #: pages that one message carries
    pages_per_job: int = Field(ge=1)
    #: other profiles that its pages may be routed to
    routes: tuple[str, ...] = ()
    #: pages to be read, when it was made to wait
    pages: int = Field(default=1, ge=0)


class DocumentKey:
    """How a document's id is made: from what changes its text, and from nothing else."""

    LENGTH: ClassVar[int] = 32

    @classmethod
    def of(
        cls,
        *,
        sources: Iterable[str],
        selection: Iterable[tuple[int, int]],
        profile_digest: str,
        problem: Problem | None = None,
    ) -> str:
        """Return the id (32 hex digits) for the sources' digests in order, the pages asked for and the profile."""
        ranges = ",".join(f"{first}-{last}" for first, last in selection)
        trouble = f"{problem.reason}:{problem.detail}" if problem else ""
        return digest_of(*sources, "pages", ranges, "profile", profile_digest, "problem", trouble)[: cls.LENGTH]
