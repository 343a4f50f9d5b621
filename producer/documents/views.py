"""What people are shown of documents: frozen values that commands print and the API answers with."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from ocrfleet.errors import Reason
from ocrfleet.records.base import Digest, DocumentId, Moment, Priority
from ocrfleet.records.documents import Failure, Problem
from producer.state.quarantine import View


class State(StrEnum):
    """Where a document is. The last three are states of a source, in the report of a collection."""

    #: it has not been dispatched, or not since it was asked to be tried again
    WAITING = "waiting"
    #: its pages are on the queue or being read
    ACTIVE = "active"
    COMPLETED = "completed"
    #: some pages have no text that is believed
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: the source is safely noted, and nobody has looked at its bytes yet
    ARRIVING = "arriving"
    #: there was a document
    DELETED = "deleted"
    #: what is stored of it can't be read
    DAMAGED = "damaged"


#: States of documents that are worked on or will be.
OPEN = frozenset({State.WAITING, State.ACTIVE})
#: States that a document may end in, as its Status says.
ENDED = (State.COMPLETED, State.PARTIAL, State.FAILED, State.CANCELLED)


class Name(View):
    """That somebody wants the document, under a name of theirs."""

    name: str
    uri: str
    collection: str
    queue: Priority
    submitted: Moment


class DocumentSummary(View):
    """A document without what can be long."""

    id: DocumentId
    state: State
    #: that the numbers are of: the open one, else the one that ended last
    generation: int
    #: pages that must end accounted for
    total: int
    done: int
    #: pages that failed in this generation
    failed: int
    #: pages without anything on them, among those done; known once the document has ended
    blank: int = 0
    #: for how many pages each reason stands; known once the document has ended
    reasons: dict[Reason, int] = Field(default_factory=dict)
    #: why it could not be taken in
    problem: Problem | None = None
    #: as the latest submission has it
    queue: Priority | None = None
    #: who wants it, the first hundred
    names: tuple[Name, ...] = ()
    #: when it was registered first
    created: Moment
    profile: str

    @property
    def left(self) -> int:
        """Number of pages that have neither a text nor a reason yet."""
        return max(0, self.total - self.done - self.failed) if self.state in OPEN else 0

    @property
    def collections(self) -> tuple[str, ...]:
        return tuple(sorted({name.collection for name in self.names}))


class OutputView(View):
    """An output that can be fetched."""

    size: int
    sha256: Digest


class DocumentView(DocumentSummary):
    """All that is known of a document."""

    #: why its results are not where somebody wants them: what is to be mended
    undelivered: str | None = None
    #: pages that failed, in order; once the document has ended
    failures: tuple[Failure, ...] = ()
    #: by format: md, json; once the document has ended
    outputs: dict[str, OutputView] = Field(default_factory=dict)


class Documents(View):
    """Some documents of a listing."""

    items: tuple[DocumentSummary, ...]
    #: where the next ones begin, to be given as `after`; None at the end. There may be more even when there are no items.
    next: str | None = None


class PageState(StrEnum):
    OPEN = "open"
    DONE = "done"
    FAILED = "failed"


class PageSummary(View):
    """How a page is."""

    page: int
    state: PageState
    reason: Reason | None = None
    detail: str | None = None


class Pages(View):
    """Some pages of a document, in order."""

    items: tuple[PageSummary, ...]
    #: to be given as `after` to get the next ones; None at the end
    next: int | None = None


class SourceRow(View):
    """A source in the report of a collection."""

    name: str
    uri: str
    #: None while nobody has looked at the source
    document: DocumentId | None = None
    state: State
    total: int = 0
    done: int = 0
    failed: int = 0
    #: why pages failed, and how many, as "truncated 2, empty 1"; or why there are no pages
    reasons: str = ""


class Forecast(View):
    """When a collection will be done, if nothing else is read meanwhile."""

    #: at the speed of the workers while they are busy; None when it is not known, for the `reason` given
    seconds: float | None = None
    #: whether the speed of some worker is assumed (OCRFLEET_PAGES_PER_SECOND), as it has not been busy for long enough
    assumed: bool = False
    reason: str | None = None
    #: documents that are waiting or active, and their pages that are to be read; an estimate where `exact` is false
    documents: int = 0
    pages: int = 0
    exact: bool = True
    #: sources whose pages nobody has counted yet: not among these
    arriving: int = 0
    #: documents that have ended, and those who want them are still to get their results or to be told
    finishing: int = 0


class Retried(View):
    """What came of asking for another try."""

    generation: int
    #: false when all pages are done already: nothing was to be tried
    opened: bool


class Removed(View):
    """What a purge removed, or would remove."""

    documents: int = 0
    objects: int = 0
