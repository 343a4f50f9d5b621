"""Document service: read, list, retry, cancel, delete and purge documents, for the commands and the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.errors import NotFoundError, TransientError
from ocrfleet.formats import FormatName
from ocrfleet.profiles.profile import Profile
from ocrfleet.profiles.select import named
from ocrfleet.records.documents import DocumentStatus, Marker, Status
from ocrfleet.records.pages import PageResult
from ocrfleet.records.submissions import Submission
from ocrfleet.records.tenants import DEFAULT
from ocrfleet.storage.page_records import stored_pages
from ocrfleet.storage.store import MARK
from producer.documents.collections import CollectionReader
from producer.documents.listing import Query, TenantCollections, check_collection
from producer.documents.lookup import DocumentFacts, Lookup
from producer.documents.retention import Retention
from producer.documents.views import OPEN, Documents, DocumentView, Forecast, Pages, Removed, Retried, SourceRow, State
from producer.errors import ConflictError
from producer.state.backlog import count_waiting
from producer.state.profiles import Profiles
from producer.state.quarantine import QuarantinedPage, quarantined, release
from producer.state.submissions import note_cancelled, others_wait, own_keys, read_submissions

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.delivery.finisher import Undelivered
    from producer.documents.retention import PurgeKind

log = structlog.get_logger(__name__)

#: Multiple of OCRFLEET_JOB_DEADLINE after which no worker writes into a deleted document any more.
_LATE = 2


#: Formats that contain the file names of sources.
_WITH_NAMES = frozenset({FormatName.ALTO, FormatName.HOCR, FormatName.PAGE_XML, FormatName.METS})


class DocumentService:
    """Reads documents from the store and its indexes; without a ledger, or while Redis is away, progress is counted there, too.

    Thread-safe. Each method may raise TransientError when the store is away, NotFoundError (no such document or page),
    ConflictError (not possible in the document's state) and UnanswerableError (no index answers the query, or it is malformed).
    """

    def __init__(self, store: ObjectStore, ledger: Ledger | None, settings: Settings) -> None:
        self._store = store
        self._ledger = ledger
        self._lookup = Lookup(store, ledger)
        self._collections = CollectionReader(store, ledger, self._lookup, assumed_speed=settings.pages_per_second)
        self._retention = Retention(store, ledger, self._lookup, late=timedelta(seconds=_LATE * settings.job_deadline))
        self._profiles = Profiles(store)

    def close(self) -> None:
        """Stop its threads."""
        self._lookup.close()

    # ---- queries

    def view(self, document: str, *, tenant: str | None = None) -> DocumentView:
        """Return the full view of a document. Raises NotFoundError for one that is unknown or was deleted."""
        return self._lookup.view(document, tenant=tenant)

    def ended(self, document: str, *, tenant: str | None = None, wanted: FormatName | None = None) -> Status:
        """Return the status of an ended document, with the keys of its outputs. Raises NotFoundError, ConflictError.

        ConflictError also where a tenant asks for a format with a file name that another one gave.
        """
        facts = self._lookup.facts(document, tenant=tenant)
        foreign = tenant not in {None, DEFAULT} and any(source.shows_name for source in facts.manifest.sources)
        if foreign and wanted in _WITH_NAMES:
            raise ConflictError(f"document {document} is not written in this format: ask for another one")
        if tenant is not None and all(submission.cancelled is not None for submission in facts.submissions):
            raise ConflictError(f"document {document} was cancelled: retry it")
        if facts.state in OPEN or facts.status is None:
            raise ConflictError(f"document {document} has not ended yet, it is {facts.state}: ask again later")
        return facts.status

    def pages(
        self,
        document: str,
        *,
        after: int = 0,
        limit: int = 100,
        review: bool | None = None,
        tenant: str | None = None,
    ) -> Pages:
        """Return the states of pages from the page after `after` on, 1,000 at most. Raises NotFoundError."""
        return self._lookup.pages(document, after=after, limit=limit, review=review, tenant=tenant)

    def page(self, document: str, page: int, *, tenant: str | None = None) -> PageResult:
        """Return the result of a page: done, else its failure in the latest generation. Raises NotFoundError."""
        return self._lookup.page(document, page, tenant=tenant)

    def documents(
        self,
        *,
        collection: str | None = None,
        state: State | None = None,
        day: str | None = None,
        review: bool | None = None,
        after: str | None = None,
        limit: int = 100,
        tenant: str | None = None,
    ) -> Documents:
        """Return documents by collection, state, day of registration (20261122), or several of these; 1,000 at most.

        `after` is the `next` of the previous result. Raises UnanswerableError when no index answers the query: there is no
        criterion, or a day together with waiting or active.
        """
        query = Query(
            collection=collection,
            state=state,
            day=day,
            review=review,
            tenant=None if tenant is None else TenantCollections.of(self._store, tenant),
        )
        return query.answer(self._store, self._lookup, after=after, limit=limit)

    def collection_report(self, collection: str) -> Iterator[SourceRow]:
        """Yield each source of a collection: those that wait for intake, then the others in the order of registration.

        A source whose intake ends meanwhile may come twice; none is left out. Raises UnanswerableError.
        """
        check_collection(collection)
        return self._collections.report(collection)

    def when_done(self, collection: str) -> Forecast:
        """Return how much of a collection is left, and the time that it takes. Raises UnanswerableError."""
        check_collection(collection)
        return self._collections.forecast(collection)

    def sources(self, collection: str) -> int:
        """Return the number of sources of a collection, without reading them. Raises UnanswerableError."""
        check_collection(collection)
        return self._collections.sources(collection)

    def undelivered(self, collection: str) -> Iterator[Undelivered]:
        """Yield the documents of a collection whose results could not be delivered. Raises UnanswerableError."""
        check_collection(collection)
        return self._collections.undelivered(collection)

    # ---- actions

    def retry(self, document: str, *, tenant: str | None = None) -> Retried:
        """Retry the pages that are not done, in a new generation; a tenant that had cancelled the document takes part again.

        Raises NotFoundError, and ConflictError for a document that is open or failed at intake.
        """
        facts = self._lookup.facts(document, tenant=tenant)
        if self._note_cancelled(document, tenant or DEFAULT, None):
            facts = self._lookup.facts(document, tenant=tenant)
            if facts.state in OPEN or facts.state is State.COMPLETED:
                return Retried(generation=facts.generation, opened=True)
        status = facts.status
        if facts.state in OPEN or status is None:
            raise ConflictError(f"document {document} is still {facts.state}: wait until it has ended, or cancel it")
        if facts.manifest.problem is not None:
            raise ConflictError(
                f"document {document} could not be taken in ({facts.manifest.problem.reason}: "
                f"{facts.manifest.problem.detail}): mend its source and submit that again"
            )
        if status.status is DocumentStatus.COMPLETED:
            return Retried(generation=status.generation, opened=False)
        submission = facts.latest
        if submission is None:
            raise ConflictError(f"document {document} has no submission any more: submit its source again")
        generation = status.generation + 1
        manifest = facts.manifest
        terms = submission.terms
        key = keys.waiting(terms.queue, terms.collection, manifest.created, document, generation)
        marker = self._marker(facts, submission, generation, status.total - status.done)
        self._store.put(key, marker.to_bytes())
        count_waiting(self._ledger, marker)
        self._store.delete(keys.ended(status.status, manifest.created[:8], document))
        release(self._store, document)
        return Retried(generation=generation, opened=True)

    def quarantined(self) -> Iterator[QuarantinedPage]:
        """Yield the pages in quarantine."""
        return quarantined(self._store)

    def cancel(self, document: str, *, tenant: str | None = None) -> int:
        """Cancel a document; return the generation that ended. Raises NotFoundError, ConflictError when it has ended.

        Pages in flight may still be stored; no output is made of them. The dispatcher removes the document's marker after it
        was finished, as for any other document. If other tenants wait for the document, it ends for this one only.
        """
        facts = self._lookup.facts(document, tenant=tenant)
        if facts.state not in OPEN:
            raise ConflictError(f"document {document} has ended already: it is {facts.state}")
        generation = facts.generation
        if tenant is not None and others_wait(self._store, document, tenant):
            self._note_cancelled(document, tenant, generation)
            return generation
        self._forget(document, generation)  # first, as Redis may be away
        stored = stored_pages(self._store, document, generation)
        status = Status(
            document=document,
            generation=generation,
            status=DocumentStatus.CANCELLED,
            total=facts.manifest.total,
            done=sum(1 for page in facts.manifest.pages() if page in stored.done),
            problem=facts.manifest.problem,
            outputs={},
        )
        if not self._store.create(keys.status(document, generation), status.to_bytes()):
            raise ConflictError(f"document {document} ended just now, before it could be cancelled")
        # The dispatcher does this, too, but not while the collection is paused.
        self._store.put(keys.ended(DocumentStatus.CANCELLED, facts.manifest.created[:8], document), MARK)
        with suppress(TransientError):
            # Again: a page that ended meanwhile may have seeded the ledger. Without a ledger, the dispatcher finds the status in
            # the store.
            self._forget(document, generation)
        if tenant is not None and others_wait(self._store, document, tenant):  # another one has submitted it just now
            self._note_cancelled(document, tenant, generation)
            self._reopen(document)
        return generation

    def delete(self, document: str, *, tenant: str | None = None) -> None:
        """Delete a document: it is not found any more. `remove_deleted` removes its objects. Raises NotFoundError.

        If other tenants have submitted the document, this one's submissions are deleted, and it ends if none of them waits for it.
        """
        facts = self._lookup.facts(document, tenant=tenant)
        cancelled = False
        if facts.state in OPEN and not (tenant is not None and others_wait(self._store, document, tenant)):
            with suppress(ConflictError):
                self.cancel(document)
                cancelled = True
        if tenant is None:
            self._retention.delete(facts.manifest, datetime.now(UTC))
            return
        if facts.shared and self._retention.withdraw(facts.manifest, tenant):
            left = True
        else:
            left = self._retention.delete_unless_shared(facts.manifest, datetime.now(UTC), tenant)
        if left and cancelled and others_wait(self._store, document, tenant):
            self._reopen(document)

    def _reopen(self, document: str) -> None:
        """Read a document after all that was cancelled while another tenant submitted it."""
        with suppress(ConflictError):  # its registration has opened it itself
            self.retry(document)

    def remove_deleted(self, now: datetime | None = None, *, seconds: float = 5.0) -> int:
        """Remove objects of deleted documents for about so many seconds; return how many. For one process at a time."""
        return self._retention.remove(now or datetime.now(UTC), seconds=seconds)

    def purge(
        self, *, older_than: timedelta, what: PurgeKind, dry_run: bool = False, now: datetime | None = None
    ) -> Removed:
        """Purge documents that have ended and were registered so long ago, in whole days."""
        now = now or datetime.now(UTC)
        return self._retention.purge(what, before=now - older_than, dry_run=dry_run, now=now)

    def pause(self, collection: str) -> None:
        """Stop dispatching a collection; published pages are still read. Raises UnanswerableError."""
        check_collection(collection)
        self._store.put(keys.paused(collection), MARK)

    def resume(self, collection: str) -> None:
        """Resume dispatching a collection. Raises UnanswerableError."""
        check_collection(collection)
        self._store.delete(keys.paused(collection))

    def paused(self) -> list[str]:
        """Return the names of the paused collections."""
        return [key.removeprefix(keys.PAUSED) for key in self._store.list(keys.PAUSED)]

    def _note_cancelled(self, document: str, tenant: str, generation: int | None) -> bool:
        """Record in a tenant's submissions that it cancelled a generation that goes on for others, or, with None, that it did not.

        Return whether any of them changed.
        """
        submissions = list(read_submissions(self._store, own_keys(self._store, document, tenant)))
        changed = [submission for submission in submissions if submission.cancelled != generation]
        for submission in changed:
            note_cancelled(self._store, submission, generation)
        return bool(changed)

    def _forget(self, document: str, generation: int) -> None:
        if self._ledger is not None:
            self._ledger.forget(document, generation)

    def _marker(self, facts: DocumentFacts, submission: Submission, generation: int, pages: int) -> Marker:
        """Return the waiting marker for a new generation."""
        manifest = facts.manifest
        try:
            profile: Profile | None = self._profiles.get(manifest.profile_digest)
        except NotFoundError:
            profile = next((known for known in named() if known.digest == manifest.profile_digest), None)
        return Marker(
            generation=generation,
            queue=submission.terms.queue,
            collection=submission.terms.collection,
            profile=manifest.profile,
            profile_digest=manifest.profile_digest,
            # A profile that is not known any more was a user's own: one page a job is always possible.
            pages_per_job=profile.pages_per_job if profile is not None else 1,
            routes=profile.destinations if profile is not None else (),
            pages=pages,
        )
