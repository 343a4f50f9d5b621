"""Look up documents in the store, and the progress of active ones in the ledger."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import structlog

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, TransientError
from ocrfleet.formats import chosen_formats
from ocrfleet.records.documents import DocumentStatus, Manifest, Marker, Status
from ocrfleet.records.pages import PageResult
from ocrfleet.records.submissions import Submission
from ocrfleet.records.tenants import plain_collection
from ocrfleet.storage.page_records import stored_pages
from producer.delivery.finisher import Undelivered
from producer.documents.views import (
    OPEN,
    DocumentSummary,
    DocumentView,
    Name,
    OutputView,
    Pages,
    PageState,
    PageSummary,
    State,
)
from producer.state.statuses import latest_status
from producer.state.submissions import foreign_keys, own_keys, read_submissions

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Submissions of a document that are shown: the same bytes may be submitted under thousands of names.
_NAMES = 100
#: Requests to the store in flight.
THREADS = 16
#: Documents or pages that one call returns at most.
MOST = 1000

_DOCUMENT = re.compile(r"[0-9a-f]{32}")
_GIVEN = TypeVar("_GIVEN")
_FOUND = TypeVar("_FOUND")


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """Records of a document in the store."""

    manifest: Manifest
    submissions: tuple[Submission, ...]
    #: of the newest generation that ended
    status: Status | None
    #: of the open generation; a document that is just being registered has neither marker nor status
    marker: Marker | None
    state: State
    #: the tenant that asks, whose submissions these are; None: all submissions, for the operator
    tenant: str | None = None
    #: whether other tenants want the document, too
    shared: bool = False

    @property
    def document(self) -> str:
        return self.manifest.document

    @property
    def generation(self) -> int:
        """The open generation, else the one that ended last."""
        if self.marker is not None:
            return self.marker.generation
        return self.status.generation if self.status is not None else 1

    @property
    def latest(self) -> Submission | None:
        """The latest submission."""
        return max(self.submissions, key=lambda submission: submission.submitted, default=None)


class Lookup:
    """Reads documents from a store. Thread-safe; `close` stops its own threads. Each call may raise TransientError."""

    def __init__(self, store: ObjectStore, ledger: Ledger | None) -> None:
        self._store = store
        self._ledger = ledger
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="lookup")

    def close(self) -> None:
        self._pool.shutdown()

    def each(self, ask: Callable[[_GIVEN], _FOUND], given: Iterable[_GIVEN]) -> list[_FOUND]:
        """Call a function for several values in parallel; return the results in order."""
        return list(self._pool.map(ask, given))

    def facts(self, document: str, *, submission: Submission | None = None, tenant: str | None = None) -> DocumentFacts:
        """Return the records of a document, of a tenant's only what is its own. Raises NotFoundError, also where nothing is.

        With a submission, only that one is read: one request less for each of the others.
        """
        manifest = self.manifest(document)
        found = (submission,) if submission is not None else tuple(self._submissions(document, tenant))
        facts = self._facts(document, manifest, found)
        return facts if tenant is None else self._of_tenant(facts, tenant)

    def check_owner(self, document: str, tenant: str | None) -> None:
        """Raise NotFoundError unless a tenant has submitted the document; with None, unless it exists."""
        self.manifest(document)
        if tenant is not None and not self._has_submission(document, tenant):
            raise _unknown(document)

    def _facts(self, document: str, manifest: Manifest, submissions: tuple[Submission, ...]) -> DocumentFacts:
        status = latest_status(self._store, document)
        if status is not None and status.status is DocumentStatus.COMPLETED:  # it stays so: two requests less
            return DocumentFacts(manifest, submissions, status, None, State.COMPLETED)
        ended = status.generation if status is not None else 0
        # In the order of a document's states, so that one that changes its state meanwhile is still found. The dispatcher
        # keeps the marker of an ended document until its results are delivered.
        marker = self._waiting(manifest, submissions, ended)
        state = State.WAITING
        with suppress(NotFoundError):
            active = Marker.from_bytes(self._store.get(keys.active(document)))
            if marker is None or active.generation >= marker.generation:
                marker, state = active, State.ACTIVE
        if marker is not None and marker.generation > ended:
            return DocumentFacts(manifest, submissions, status, marker, state)
        status = latest_status(self._store, document)
        state = State(status.status) if status is not None else State.WAITING
        return DocumentFacts(manifest, submissions, status, None, state)

    def _of_tenant(self, facts: DocumentFacts, tenant: str) -> DocumentFacts:
        """Return what a tenant may know of a document. Raises NotFoundError when it has not submitted it."""
        own = tuple(submission for submission in facts.submissions if submission.tenant == tenant)
        if not own:
            raise _unknown(facts.document)
        # By a listing of the others' keys: neither the number of submissions nor a damaged one changes the answer.
        shared = next(foreign_keys(self._store, facts.document, tenant), None) is not None
        facts = replace(facts, submissions=own, tenant=tenant, shared=shared)
        if any(submission.cancelled is None for submission in own):
            return facts
        if facts.status is not None and facts.state is State.CANCELLED:
            return facts  # for all of them
        # It goes on for others; for this tenant it ended when it was cancelled.
        generation = max(submission.cancelled or 1 for submission in own)
        status = Status(
            document=facts.document,
            generation=generation,
            status=DocumentStatus.CANCELLED,
            total=facts.manifest.total,
            done=0,
            problem=facts.manifest.problem,
            outputs={},
        )
        return replace(facts, status=status, marker=None, state=State.CANCELLED)

    def _has_submission(self, document: str, tenant: str) -> bool:
        return next(own_keys(self._store, document, tenant), None) is not None

    def completed(self, document: str) -> Status | None:
        """Return the status of a document that was completed in its first generation, as most are, by one request; else None."""
        try:
            status = Status.from_bytes(self._store.get(keys.status(document, 1)))
        except NotFoundError:
            return None
        return status if status.status is DocumentStatus.COMPLETED else None

    def manifest(self, document: str) -> Manifest:
        """Return a document's manifest. Raises NotFoundError for a document that is unknown or was deleted."""
        if not _DOCUMENT.fullmatch(document):
            raise NotFoundError(f"{document!r} is no document's id: an id is 32 digits of 0-9 and a-f, all of them")
        try:
            return Manifest.from_bytes(self._store.get(keys.manifest(document)))
        except NotFoundError as error:
            raise _unknown(document) from error

    def summaries(self, documents: Sequence[str], *, tenant: str | None = None) -> list[DocumentSummary | None]:
        """Return summaries of documents; None for one that is gone, damaged, or not the tenant's."""
        found = self.each(lambda document: self._facts_or_none(document, tenant), documents)
        progress = iter(self.progress([facts for facts in found if facts is not None]))
        return [
            None if facts is None else DocumentSummary.model_validate(_summary(facts, *next(progress)))
            for facts in found
        ]

    def view(self, document: str, *, tenant: str | None = None) -> DocumentView:
        """Return the full view of a document, for a tenant. Raises NotFoundError."""
        facts = self.facts(document, tenant=tenant)
        ((done, failed),) = self.progress([facts])
        ended = facts.status if facts.state not in OPEN else None
        outputs = {
            extension: OutputView(size=output.size, sha256=output.sha256)
            for extension, output in (ended.outputs.items() if ended is not None else ())
            if not facts.shared or extension in _formats(facts)
        }
        refused = (ended.refused or {}) if ended is not None else {}
        return DocumentView.model_validate(
            _summary(facts, done, failed)
            | {
                "failures": ended.failures if ended is not None else (),
                "review_pages": ended.review if ended is not None else (),
                "outputs": outputs,
                "refused": {name: why for name, why in refused.items() if not facts.shared or name in _formats(facts)},
                "undelivered": self._undelivered(document) if ended is not None and not facts.shared else None,
            }
        )

    def progress(self, documents: Sequence[DocumentFacts]) -> list[tuple[int, int]]:
        """Return the number of pages that are done and that failed, for each document."""
        active = [facts for facts in documents if facts.state is State.ACTIVE]
        known = dict(
            zip(
                (facts.document for facts in active),
                self._ledger_progress([(facts.document, facts.generation) for facts in active]),
                strict=True,
            )
        )
        return [known.get(facts.document) or self._stored_progress(facts) for facts in documents]

    def pages(
        self, document: str, *, after: int, limit: int, review: bool | None = None, tenant: str | None = None
    ) -> Pages:
        """Return the states of pages from the page after `after` on. Raises NotFoundError.

        `review` leaves only the pages that a person should look at, or only the others.
        """
        facts = self.facts(document, tenant=tenant)
        limit = max(1, min(limit, MOST))
        ended = facts.status if facts.state not in OPEN else None
        doubts = {doubt.page: doubt.reason for doubt in ended.review} if ended is not None else {}
        fitting = (page for page in facts.manifest.pages() if review is None or review is (page in doubts))
        wanted = list(islice((page for page in fitting if page > after), limit + 1))
        if not wanted:
            return Pages(items=())
        shown = wanted[:limit]
        if facts.state is State.COMPLETED:  # its page records may have been purged
            items = [PageSummary(page=page, state=PageState.DONE, review=doubts.get(page)) for page in shown]
        else:
            stored = stored_pages(self._store, document, facts.generation, first=shown[0], last=shown[-1])
            failed = [page for page in shown if page in stored.failed]
            failures = dict(zip(failed, self.each(lambda page: self._failure(facts, page), failed), strict=True))
            items = [
                failures.get(page)
                or PageSummary(
                    page=page,
                    state=PageState.DONE if page in stored.done else PageState.OPEN,
                    review=doubts.get(page),
                )
                for page in shown
            ]
        return Pages(items=tuple(items), next=shown[-1] if len(wanted) > limit else None)

    def page(self, document: str, page: int, *, tenant: str | None = None) -> PageResult:
        """Return the result of a page: done, else its failure in the latest generation. Raises NotFoundError."""
        self.check_owner(document, tenant)
        before = keys.page_done(document, page - 1) if page > 1 else None
        found: dict[int | None, str] = {}
        for key in islice(self._store.list(keys.pages(document), after=before), MOST):
            number, failed_in = keys.parse_page(key)
            if number != page:
                break
            found[failed_in] = key
        if not found:
            raise NotFoundError(
                f"document {document} has no result of page {page}: it was not read yet, is not among the selected pages, "
                "or was purged"
            )
        key = found.get(None) or found[max(generation for generation in found if generation is not None)]
        return PageResult.from_bytes(self._store.get(key))

    def _undelivered(self, document: str) -> str | None:
        try:
            return Undelivered.from_bytes(self._store.get(keys.undelivered(document))).detail
        except (NotFoundError, DamagedRecordError):
            return None

    def _facts_or_none(self, document: str, tenant: str | None) -> DocumentFacts | None:
        try:
            return self.facts(document, tenant=tenant)
        except NotFoundError:
            return None
        except DamagedRecordError as error:
            log.error("lookup.document_damaged", document=document, error=str(error))  # noqa: TRY400
            return None

    def _submissions(self, document: str, tenant: str | None) -> Iterator[Submission]:
        """Yield the first submissions of a document, and the first of a tenant's own."""
        found = list(islice(self._store.list(keys.wanted_by(document)), _NAMES))
        if tenant is not None and len(found) == _NAMES:
            found = list(dict.fromkeys([*found, *islice(own_keys(self._store, document, tenant), _NAMES)]))
        return read_submissions(self._store, iter(found))

    def _waiting(self, manifest: Manifest, submissions: Iterable[Submission], ended: int) -> Marker | None:
        """Return the newest waiting marker of the document; None without one."""
        markers = []
        for key in waiting_keys(manifest, submissions, ended):
            with suppress(NotFoundError):
                markers.append(Marker.from_bytes(self._store.get(key)))
        return max(markers, key=lambda marker: marker.generation, default=None)

    def _ledger_progress(self, documents: Sequence[tuple[str, int]]) -> list[tuple[int, int] | None]:
        """Return (done, failed) of each document by the ledger; None where it does not know the document."""
        if self._ledger is None:
            return [None] * len(documents)
        try:
            answers = self._ledger.progress(documents)
        except TransientError:
            return [None] * len(documents)  # it is counted in the store then
        return [(answer.terminal - answer.failed, answer.failed) if answer is not None else None for answer in answers]

    def _stored_progress(self, facts: DocumentFacts) -> tuple[int, int]:
        """Return (done, failed) of a document by the store."""
        if facts.state not in OPEN and facts.status is not None:
            if facts.state is State.CANCELLED:
                return facts.status.done, len(facts.status.failures)
            return facts.status.done, facts.status.total - facts.status.done
        if facts.state is State.WAITING:
            return facts.status.done if facts.status is not None else 0, 0
        stored = stored_pages(self._store, facts.document, facts.generation)
        return len(stored.done), len(stored.failed)

    def _failure(self, facts: DocumentFacts, page: int) -> PageSummary:
        result = PageResult.from_bytes(self._store.get(keys.page_failed(facts.document, page, facts.generation)))
        return PageSummary(page=page, state=PageState.FAILED, reason=result.reason, detail=result.detail)


def waiting_keys(manifest: Manifest, submissions: Iterable[Submission], ended: int) -> list[str]:
    """Return the possible keys of waiting markers of a document; `ended` is the last generation that ended, 0 for none."""
    places = sorted({(submission.terms.queue, submission.terms.collection) for submission in submissions})
    return [
        keys.waiting(queue, collection, manifest.created, manifest.document, generation)
        for queue, collection in places
        for generation in (ended, ended + 1)
        if generation
    ]


def _unknown(document: str) -> NotFoundError:
    return NotFoundError(f"there is no document {document}: it was never registered in this store, or was deleted")


def _formats(facts: DocumentFacts) -> set[str]:
    """Return the formats that the known submissions ask for."""
    return {name for submission in facts.submissions for name in chosen_formats(submission.terms.formats)}


def _collection(facts: DocumentFacts, submission: Submission) -> str:
    stored = submission.terms.collection
    return stored if facts.tenant is None else plain_collection(stored)


def _created(facts: DocumentFacts) -> str:
    """Return when the document was first registered, by the tenant that asks."""
    created = facts.manifest.created
    if facts.tenant is None:
        return created
    return max(created, min(submission.listed or submission.submitted for submission in facts.submissions))


def reasons_of(status: Status) -> str:
    """Return the reasons of failed pages with their counts, or the reason why a document has no pages."""
    if status.problem is not None:
        return f"{status.problem.reason}: {status.problem.detail}"
    counted = Counter(failure.reason for failure in status.failures)
    return ", ".join(f"{reason} {count}" for reason, count in counted.most_common())


def _summary(facts: DocumentFacts, done: int, failed: int) -> dict[str, object]:
    ended = facts.status if facts.state not in OPEN else None
    latest = facts.latest
    return {
        "id": facts.document,
        "state": facts.state,
        "generation": facts.generation,
        "total": facts.manifest.total,
        "done": done,
        "failed": failed,
        "blank": ended.blank if ended is not None else 0,
        "warnings": ended.warnings if ended is not None else {},
        "review": len(ended.review) if ended is not None else 0,
        "reasons": Counter(failure.reason for failure in ended.failures) if ended is not None else {},
        "problem": facts.manifest.problem,
        "queue": latest.terms.queue if latest is not None else None,
        "names": tuple(
            Name(
                name=submission.name,
                uri=submission.uri,
                collection=_collection(facts, submission),
                queue=submission.terms.queue,
                submitted=submission.submitted,
                formats=chosen_formats(submission.terms.formats),
            )
            for submission in facts.submissions
        ),
        "created": _created(facts),
        "profile": facts.manifest.profile,
    }
