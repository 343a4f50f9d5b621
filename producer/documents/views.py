"""Views of documents: frozen values that the commands print and the API returns."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from ocrfleet.errors import Reason
from ocrfleet.records.base import Digest, DocumentId, Moment
from ocrfleet.records.documents import Failure, Problem, ReviewPage
from ocrfleet.records.priority import Priority
from producer.state.quarantine import View


class State(StrEnum):
    """State of a document. The last three are states of a source, in the report of a collection."""

    #: it has not been dispatched, or not since a retry was requested
    WAITING = "waiting"
    #: its pages are on the queue or with workers
    ACTIVE = "active"
    COMPLETED = "completed"
    #: some pages failed
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: the source waits for intake
    ARRIVING = "arriving"
    #: the document was deleted
    DELETED = "deleted"
    #: its records can't be parsed
    DAMAGED = "damaged"


#: States of documents that have not ended.
OPEN = frozenset({State.WAITING, State.ACTIVE})
#: States that a document may end in, as its Status says.
ENDED = (State.COMPLETED, State.PARTIAL, State.FAILED, State.CANCELLED)


class Name(View):
    """A submission of the document: its name and where it came from."""

    name: str
    uri: str
    collection: str
    queue: Priority
    submitted: Moment
    #: formats that are delivered
    formats: tuple[str, ...] = ()


class DocumentSummary(View):
    """A document, without lists that can be long."""

    id: DocumentId
    state: State
    #: generation of the numbers: the open one, else the one that ended last
    generation: int
    #: pages to be read
    total: int
    done: int
    #: pages that failed in this generation
    failed: int
    #: blank pages among those done; known once the document has ended
    blank: int = 0
    #: number of pages with a warning about their file, by code; known once the document has ended
    warnings: dict[str, int] = Field(default_factory=dict)
    #: pages that are done and that a person should look at; known once the document has ended
    review: int = 0
    #: failed pages by reason; known once the document has ended
    reasons: dict[Reason, int] = Field(default_factory=dict)
    #: why intake failed
    problem: Problem | None = None
    #: priority of the latest submission
    queue: Priority | None = None
    #: its submissions, the first hundred
    names: tuple[Name, ...] = ()
    #: when it was first registered
    created: Moment
    profile: str

    @property
    def left(self) -> int:
        """Number of pages that are neither done nor failed yet."""
        return max(0, self.total - self.done - self.failed) if self.state in OPEN else 0

    @property
    def collections(self) -> tuple[str, ...]:
        return tuple(sorted({name.collection for name in self.names}))


class OutputView(View):
    """An output that can be fetched."""

    size: int
    sha256: Digest


class DocumentView(DocumentSummary):
    """A document with its failures and outputs."""

    #: why its results could not be delivered, and what to correct
    undelivered: str | None = None
    #: pages that failed, in order; once the document has ended
    failures: tuple[Failure, ...] = ()
    #: pages that are done and that a person should look at, in order; once the document has ended
    review_pages: tuple[ReviewPage, ...] = ()
    #: by format, those that were written when it ended; other formats are made when they are asked for
    outputs: dict[str, OutputView] = Field(default_factory=dict)
    #: by format: why it could not be written, and what to do
    refused: dict[str, str] = Field(default_factory=dict)


class Documents(View):
    """A page of a listing of documents."""

    items: tuple[DocumentSummary, ...]
    #: cursor of the next documents, to be passed as `after`; None at the end. There may be more even without items.
    next: str | None = None


class PageState(StrEnum):
    OPEN = "open"
    DONE = "done"
    FAILED = "failed"


class PageSummary(View):
    """State of a page."""

    page: int
    state: PageState
    reason: Reason | None = None
    detail: str | None = None
    #: why a person should look at the page although it is done; known once the document has ended
    review: str | None = None


class Pages(View):
    """Pages of a document, in order."""

    items: tuple[PageSummary, ...]
    #: cursor of the next pages, to be passed as `after`; None at the end
    next: int | None = None


class SourceRow(View):
    """A source in the report of a collection."""

    name: str
    uri: str
    #: None before intake
    document: DocumentId | None = None
    state: State
    total: int = 0
    done: int = 0
    failed: int = 0
    #: pages that are done and that a person should look at; known once the document has ended
    review: int = 0
    #: reasons of failed pages with counts, as "truncated 2, empty 1"; or why there are no pages
    reasons: str = ""


class Forecast(View):
    """Forecast of when a collection will be done, if the workers read nothing else."""

    #: at the speed of the workers while they are busy; None when it is not known, for the `reason` given
    seconds: float | None = None
    #: whether the speed of some worker is assumed (OCRFLEET_PAGES_PER_SECOND), as it has not been busy for long enough
    assumed: bool = False
    reason: str | None = None
    #: documents that are waiting or active, and their pages that are left; an estimate where `exact` is false
    documents: int = 0
    pages: int = 0
    exact: bool = True
    #: sources that wait for intake: their pages are not counted yet
    arriving: int = 0
    #: documents that have ended and are being delivered
    finishing: int = 0


class Retried(View):
    """Result of a retry request."""

    generation: int
    #: false when all pages are done: there was nothing to retry
    opened: bool


class Removed(View):
    """Counts of a purge, or of its dry run."""

    documents: int = 0
    objects: int = 0
