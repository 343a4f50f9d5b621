"""PurgeKind the store knows of documents, and what people may ask of them: for commands and for the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.errors import NotFoundError, TransientError
from ocrfleet.profiles.models import named
from ocrfleet.profiles.profile import Profile
from ocrfleet.records.documents import DocumentStatus, Marker, Status
from ocrfleet.records.pages import PageResult
from ocrfleet.records.submissions import Submission
from ocrfleet.storage.page_records import stored_pages
from ocrfleet.storage.store import MARK
from producer.documents.collections import CollectionReader
from producer.documents.listing import Query, check_collection
from producer.documents.lookup import DocumentFacts, Lookup
from producer.documents.retention import Retention
from producer.documents.views import OPEN, Documents, DocumentView, Forecast, Pages, Removed, Retried, SourceRow, State
from producer.errors import ConflictError
from producer.state.backlog import count_waiting
from producer.state.profiles import Profiles
from producer.state.quarantine import QuarantinedPage, quarantined, release

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.delivery.finisher import Undelivered
    from producer.documents.retention import PurgeKind

log = structlog.get_logger(__name__)

#: In units of the time that a job may be renewed for: after that no worker writes into a deleted document any more.
_LATE = 2


class DocumentService:
    """Answers from the store and its indexes; without a ledger, or while Redis is away, progress comes from listings.

    May be used by several threads. Every method may raise TransientError when the store is away. Errors of what was asked:
    NotFoundError (no such document or page), ConflictError (not in this state; producer/documents/lookup.py), UnanswerableError (no
    index answers that, or what was given is malformed; producer/documents/listing.py). PurgeKind is returned stands in producer/documents/views.py.
    """

    def __init__(self, store: ObjectStore, ledger: Ledger | None, settings: Settings) -> None:
        self._store = store
        self._ledger = ledger
        self._lookup = Lookup(store, ledger)
        self._collections = CollectionReader(store, ledger, self._lookup, assumed_speed=settings.pages_per_second)
        self._retention = Retention(store, ledger, self._lookup, late=timedelta(seconds=_LATE * settings.job_deadline))
        self._profiles = Profiles(store)

    def close(self) -> None:
        """End its threads."""
        self._lookup.close()

    # ---- what is known

    def view(self, document: str) -> DocumentView:
        """Return all that is known of a document. Raises NotFoundError for one that is unknown or was deleted."""
        return self._lookup.view(document)

    def ended(self, document: str) -> Status:
        """Return how a document ended, with the keys of its outputs. Raises NotFoundError, ConflictError while it is open."""
        facts = self._lookup.facts(document)
        if facts.state in OPEN or facts.status is None:
            raise ConflictError(f"document {document} has not ended yet, it is {facts.state}: ask again later")
        return facts.status

    def pages(self, document: str, *, after: int = 0, limit: int = 100) -> Pages:
        """Return how the pages behind page `after` are, at most 1,000. Raises NotFoundError."""
        return self._lookup.pages(document, after=after, limit=limit)

    def page(self, document: str, page: int) -> PageResult:
        """Return what became of a page: its text, else its failure in the latest generation. Raises NotFoundError."""
        return self._lookup.page(document, page)

    def documents(
        self,
        *,
        collection: str | None = None,
        state: State | None = None,
        day: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Documents:
        """Return documents of a collection, in a state, registered on a day (20261122), or several of these; at most 1,000.

        `after` is the `next` of the answer before. Raises UnanswerableError when no index answers that: nothing was named,
        or a day of documents that are waiting or active.
        """
        query = Query(collection=collection, state=state, day=day)
        return query.answer(self._store, self._lookup, after=after, limit=limit)

    def collection_report(self, collection: str) -> Iterator[SourceRow]:
        """Yield every source of a collection: those nobody has looked at yet, then the others as they were registered.

        One that is being taken in meanwhile may come twice; none is left out. Raises UnanswerableError.
        """
        check_collection(collection)
        return self._collections.report(collection)

    def when_done(self, collection: str) -> Forecast:
        """Say how much of a collection is left, and how long its workers take for that. Raises UnanswerableError."""
        check_collection(collection)
        return self._collections.forecast(collection)

    def sources(self, collection: str) -> int:
        """Return how many sources a collection has, without reading what they are. Raises UnanswerableError."""
        check_collection(collection)
        return self._collections.sources(collection)

    def undelivered(self, collection: str) -> Iterator[Undelivered]:
        """Yield the documents of a collection whose results somebody's bucket does not take. Raises UnanswerableError."""
        check_collection(collection)
        return self._collections.undelivered(collection)

    # ---- what may be asked

    def retry(self, document: str) -> Retried:
        """Have the pages tried again that are not done, in a new generation.

        Raises NotFoundError, ConflictError for a document that is open or could not be taken in.
        """
        facts = self._lookup.facts(document)
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
            raise ConflictError(f"nobody wants document {document} any more: submit its source again")
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
        """Yield the pages that workers died of, until somebody has them tried again."""
        return quarantined(self._store)

    def cancel(self, document: str) -> int:
        """End a document as it is; return the generation that ended. Raises NotFoundError, ConflictError when it has ended.

        Pages that are being read now may still be stored; no output is made of them. The dispatcher removes the document's
        marker when its end was told to those who want to know, as that of any other.
        """
        facts = self._lookup.facts(document)
        if facts.state not in OPEN:
            raise ConflictError(f"document {document} has ended already: it is {facts.state}")
        generation = facts.generation
        self._forget(document, generation)  # before anything is changed: Redis may be away
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
        # Also by the dispatcher, but while its collection is paused that does not come to it.
        self._store.put(keys.ended(DocumentStatus.CANCELLED, facts.manifest.created[:8], document), MARK)
        with suppress(TransientError):
            # Once more: a page that ended meanwhile has made the ledger known again. Without a ledger the dispatcher asks
            # the store, and finds the end.
            self._forget(document, generation)
        return generation

    def delete(self, document: str) -> None:
        """Forget a document: nobody finds it any more. `remove_deleted` removes its objects. Raises NotFoundError."""
        facts = self._lookup.facts(document)
        if facts.state in OPEN:
            with suppress(ConflictError):
                self.cancel(document)
        self._retention.delete(facts.manifest, datetime.now(UTC))

    def remove_deleted(self, now: datetime | None = None, *, seconds: float = 5.0) -> int:
        """Remove objects of deleted documents for about so many seconds; return how many. One process at a time does it."""
        return self._retention.remove(now or datetime.now(UTC), seconds=seconds)

    def purge(
        self, *, older_than: timedelta, what: PurgeKind, dry_run: bool = False, now: datetime | None = None
    ) -> Removed:
        """Remove what is kept of documents that have ended and were registered so long ago, by whole days."""
        now = now or datetime.now(UTC)
        return self._retention.purge(what, before=now - older_than, dry_run=dry_run, now=now)

    def pause(self, collection: str) -> None:
        """Dispatch nothing more of a collection; pages that were handed over are still read. Raises UnanswerableError."""
        check_collection(collection)
        self._store.put(keys.paused(collection), MARK)

    def resume(self, collection: str) -> None:
        """Dispatch a collection again. Raises UnanswerableError."""
        check_collection(collection)
        self._store.delete(keys.paused(collection))

    def paused(self) -> list[str]:
        """Return the names of the collections that are paused."""
        return [key.removeprefix(keys.PAUSED) for key in self._store.list(keys.PAUSED)]

    def _forget(self, document: str, generation: int) -> None:
        if self._ledger is not None:
            self._ledger.forget(document, generation)

    def _marker(self, facts: DocumentFacts, submission: Submission, generation: int, pages: int) -> Marker:
        """Return what makes a document wait once more."""
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
            # A profile that is not known any more is one of somebody's own: its pages go one by one.
            pages_per_job=profile.pages_per_job if profile is not None else 1,
            routes=profile.destinations if profile is not None else (),
            pages=pages,
        )
