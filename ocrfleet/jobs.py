"""The contract between producers and workers: what is stored and what is sent.

Everything here is frozen, JSON, and carries `schema_version`. A page is addressed by its 1-based number in its
document; a document is one source, or several images in order, so page numbers run through all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ocrfleet.errors import DamagedRecordError, PermanentError, Reason

SCHEMA_VERSION = 1

DocumentId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PageNumber = Annotated[int, Field(ge=1)]
Generation = Annotated[int, Field(ge=1, le=99999)]
#: Named by people, and a part of keys.
Collection = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$")]
#: When something was registered, UTC, as 20261122T051000.123456Z: sorts by time.
Moment = Annotated[str, Field(pattern=r"^\d{8}T\d{6}\.\d{6}Z$")]


class Record(BaseModel):
    """A frozen value that refuses unknown fields, so that a newer writer is noticed and not half understood."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """Serialise as one line of JSON; the same value always gives the same bytes."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises DamagedRecordError."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise DamagedRecordError(f"a stored {cls.__name__} can't be read: {_problems(error)}") from error


def _problems(error: ValidationError) -> str:
    """Say what is wrong with a record, without what stands in it."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))


class Kind(StrEnum):
    """What a source is, told by its bytes and never by its name."""

    PDF = "pdf"
    PNG = "png"
    JPEG = "jpeg"
    TIFF = "tiff"
    WEBP = "webp"
    BMP = "bmp"
    JPEG2000 = "jpeg2000"


class Queue(StrEnum):
    """The class of a document: interactive ones are dispatched before bulk ones, and have queues of their own."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


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


class Message(Record):
    """What a task gets as its only argument."""

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """Parse a task's argument. Raises PermanentError for anything that is no such message of this version."""
        try:
            return cls.model_validate(message)
        except ValidationError as error:
            raise PermanentError(
                Reason.INTERNAL_ERROR, f"not a {cls.__name__} of schema {SCHEMA_VERSION}: {_problems(error)}"
            ) from error


class Routed(Record):
    """Another profile, that a rule or a rung of the one before sends a page to."""

    profile: str
    profile_digest: Digest
    #: of the profile before: what its texts must be in (Judgement.scripts)
    scripts: tuple[str, ...] = ()


class Climbing(Routed):
    """Another profile that makes one attempt at a page, as a rung of the ladder of the profile that reads it says."""

    #: of that ladder, from 1
    rung: int = Field(ge=1)
    #: limits of the attempt: tokens, and seconds in the engine
    max_tokens: int | None = Field(default=None, ge=1)
    deadline: float | None = Field(default=None, gt=0)


class PageJob(Message):
    """What one message carries: a range of one document's pages, in one generation."""

    schema_version: Literal[1] = 1
    document: DocumentId
    generation: Generation
    queue: Queue
    first: PageNumber
    last: PageNumber
    #: who reads these pages instead of the document's own profile
    routed: Routed | None = None
    #: who makes the next attempt at these pages, and only that one
    climbing: Climbing | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError("a job's last page comes before its first")
        return self

    @property
    def sent_to(self) -> Routed | None:
        """Whose queue it is on; None for that of the document's own profile."""
        return self.climbing or self.routed


class AssemblyJob(Message):
    """Ask for the assembly of a document, in one generation."""

    schema_version: Literal[1] = 1
    document: DocumentId
    generation: Generation


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
    queue: Queue
    collection: str
    profile: str
    profile_digest: Digest
    #: pages that one message carries
    pages_per_job: int = Field(ge=1)
    #: other profiles that its pages may be routed to
    routes: tuple[str, ...] = ()
    #: pages to be read, when it was made to wait
    pages: int = Field(default=1, ge=0)


class WorkerState(Record):
    """What a worker says of itself at each heartbeat."""

    schema_version: Literal[1] = 1
    worker: str
    profile: str
    profile_digest: Digest
    #: since it was ready
    seconds: float = 0.0
    #: that the engine has read
    pages: int = 0
    #: that the engine has written
    tokens: int = 0
    #: with at least one page in hand
    busy_seconds: float = 0.0
    #: with fewer pages with the engine than it takes, while others were being made ready
    starved_seconds: float = 0.0


class Terms(Record):
    """How somebody wants their sources to be read, and where what becomes of them."""

    #: its profile is in the store, under keys.profile
    profile_digest: Digest
    queue: Queue
    collection: Collection
    #: pages to read, as inclusive ranges; an open end is None; () for all
    selection: tuple[tuple[PageNumber, PageNumber | None], ...] = ()
    #: s3://bucket/prefix/ that outputs are delivered to, as <prefix><name>.<format>; None where nothing is delivered
    results: str | None = None
    #: that are delivered: md, json; () for all
    formats: tuple[str, ...] = ()
    #: that is told when the document has ended
    callback: str | None = None


class Wish(Record):
    """A source that somebody wants read, before anybody has looked at its bytes."""

    #: relative path that its outputs are named by; of a source in S3, its key
    name: str = Field(min_length=1)
    uri: str
    size: int = Field(ge=0)
    mtime_ns: int = 0
    etag: str | None = None
    version: str | None = None


class Arrival(Record):
    """Wishes that are safely noted and wait for intake, which removes it when each has become a document.

    Doing it twice changes nothing.
    """

    schema_version: Literal[1] = 1
    created: Moment
    terms: Terms
    wishes: tuple[Wish, ...] = Field(min_length=1, max_length=1000)
    #: whether somebody follows it: then it is noted (Asked) what became of its one wish
    followed: bool = False

    @model_validator(mode="after")
    def _followed_by_one(self) -> Self:
        if self.followed and len(self.wishes) > 1:
            raise ValueError("an arrival of several wishes can't be followed")
        return self


class Asked(Record):
    """What became of an arrival that somebody follows: both are None while it waits."""

    schema_version: Literal[1] = 1
    document: DocumentId | None = None
    #: why it has become none
    refused: str | None = None


class IntakeJob(Message):
    """Ask for the intake of an arrival."""

    schema_version: Literal[1] = 1
    arrival: str = Field(pattern=r"^arrivals/")


class Submission(Record):
    """That somebody wants a document, under a name of theirs. Two submissions may want the same document."""

    #: what schema 1 wrote lay under other keys, and nobody ever read it
    schema_version: Literal[2] = 2
    name: str
    document: DocumentId
    #: what it was made of; an image of a book is one of several
    uri: str
    #: when it was asked for last: of two documents with one name, the one asked for later is delivered
    submitted: Moment
    terms: Terms

    @property
    def digest(self) -> str:
        """The same for everybody who wants the same in the same way."""
        return digest_of(self.name, self.document, self.uri, self.terms.to_bytes().decode())


def digest_of(*parts: str) -> str:
    """Return the SHA-256 (hex) of the parts, each with its length, so that no two lists of parts collide."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        sha.update(len(data).to_bytes(8, "big"))
        sha.update(data)
    return sha.hexdigest()


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
