"""Records of documents: source, manifest, marker, status.

Records are frozen, stored as JSON, and carry a `schema_version`. Pages are numbered from 1 within a document; a document
is one source, or several images in order with continuous page numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.base import Digest, DocumentId, Generation, Moment, PageNumber, Record, digest_of
from ocrfleet.records.priority import Priority


class Kind(StrEnum):
    """Kind of a source, detected by its bytes and never by its name."""

    PDF = "pdf"
    PNG = "png"
    JPEG = "jpeg"
    TIFF = "tiff"
    WEBP = "webp"
    BMP = "bmp"
    JPEG2000 = "jpeg2000"


class Source(Record):
    """A file that is referenced, not copied. `size` with `mtime_ns` or `etag` shows cheaply whether it changed."""

    #: file:///…, s3://bucket/key or store:key (an upload), percent-encoded: any name is possible
    uri: str
    size: int
    #: time of the last change in nanoseconds; 0 where there is an `etag`
    mtime_ns: int
    etag: str | None = None
    #: version in a bucket with versioning
    version: str | None = None
    #: of the bytes at registration
    sha256: Digest
    kind: Kind
    #: pages of a PDF, frames of an image
    pages: int = Field(ge=1)
    #: its file name is not for outputs, which tenants share; None: outputs may have it
    unnamed: Literal[True] | None = None

    @property
    def shows_name(self) -> bool:
        """Whether outputs have its file name. An upload has none."""
        return self.unnamed is None and self.uri.startswith(("file:", "s3:"))


class Problem(Record):
    """Why the intake of a document failed."""

    reason: Reason
    detail: str


class Manifest(Record):
    """Sources, pages and profile of a document, for workers. Written before its first job; only a source's URI may change.

    A document whose intake failed has no sources, no pages and a `problem`: it ends as `failed` in the same way as others.
    """

    schema_version: Literal[1] = 1
    document: DocumentId
    #: when it was first registered
    created: Moment
    profile: str
    profile_digest: Digest
    sources: tuple[Source, ...] = ()
    #: pages to read, as inclusive ranges, ascending and disjoint
    selection: tuple[tuple[PageNumber, PageNumber], ...] = ()
    problem: Problem | None = None

    @property
    def total(self) -> int:
        """Number of pages to read."""
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


class ReviewPage(Record):
    """A page that is done and that a person should look at, as its text is in doubt."""

    page: PageNumber
    #: 0..1, as in PageResult
    confidence: float
    reason: str


class Output(Record):
    """A stored output, with a hash by which a reader can check that it is complete."""

    key: str
    sha256: Digest
    size: int


class Status(Record):
    """How a document ended, in one generation. Written once and last: its outputs exist then."""

    schema_version: Literal[1] = 1
    document: DocumentId
    generation: Generation
    status: DocumentStatus
    total: int
    done: int
    blank: int = 0
    #: pages whose text is the text layer of the PDF
    text_layer: int = 0
    #: figures that were cut out of the pages
    figures: int = 0
    #: number of pages with a warning, by the code of PageWarning
    warnings: dict[str, int] = Field(default_factory=dict)
    #: pages that a person should look at, in order
    review: tuple[ReviewPage, ...] = ()
    failures: tuple[Failure, ...] = ()
    problem: Problem | None = None
    #: by format: md, json, and those that submissions asked for before it ended
    outputs: dict[str, Output]
    #: by format: why it could not be written, and what to do; None when none was refused
    refused: dict[str, str] | None = None


class Conversion(Record):
    """An output in a format that was asked for after its document had ended."""

    schema_version: Literal[1] = 1
    output: Output | None = None
    #: why it could not be written, and what to do
    refused: str | None = None


class Marker(Record):
    """Marker of a waiting or active document, with the fields of it that the dispatcher and the sweep read."""

    schema_version: Literal[1] = 1
    generation: Generation
    queue: Priority
    collection: str
    profile: str
    profile_digest: Digest
    #: pages that one message carries
    pages_per_job: int = Field(ge=1)
    #: other profiles that its pages may be sent to
    routes: tuple[str, ...] = ()
    #: pages that are left to read, when the marker was written
    pages: int = Field(default=1, ge=0)


class DocumentKey:
    """Makes a document's id from what changes its text, and from nothing else."""

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
        """Return the id (32 hex digits) for the sources' digests in order, the selected pages and the profile."""
        ranges = ",".join(f"{first}-{last}" for first, last in selection)
        trouble = f"{problem.reason}:{problem.detail}" if problem else ""
        return digest_of(*sources, "pages", ranges, "profile", profile_digest, "problem", trouble)[: cls.LENGTH]
