"""Retention: deletes documents, and purges what is older than a given age.

A deleted document has no manifest: from then on it is not found. Its tombstone marks its objects for removal, at once and
again when no late worker can write any more. Registering the same bytes again writes a manifest, so the manifest is checked
before each batch: a document that was registered again loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby, islice
from typing import TYPE_CHECKING, Literal

import structlog

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.base import DocumentId, Moment, Record
from ocrfleet.records.documents import Manifest, Marker
from ocrfleet.records.submissions import Submission
from producer.documents.lookup import Lookup
from producer.documents.views import ENDED, OPEN, Removed, State
from producer.state.backlog import count_waiting
from producer.state.quarantine import release
from producer.state.statuses import latest_status
from producer.state.submissions import foreign_keys, own_keys, read_submissions

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Objects that are removed between two checks whether the document was registered again.
_AT_ONCE = 256
#: Age of a tombstone after which a manifest beside it is that of a new registration.
_REGISTERED_AGAIN = timedelta(seconds=60)
_MOMENT = "%Y%m%dT%H%M%S.%fZ"


class PurgeKind(StrEnum):
    """The objects that a purge removes."""

    #: uploads of which each document has ended
    UPLOADS = "uploads"
    #: page records, retry states and run records of completed documents; their outputs stay
    PAGES = "pages"
    #: documents that have ended, with all of their objects
    DOCUMENTS = "documents"


class Tombstone(Record):
    """Marker of a deleted document."""

    schema_version: Literal[1] = 1
    document: DocumentId
    deleted: Moment
    #: when it was registered: part of the keys of its index entries
    created: Moment


class Retention:
    """Deletes and purges documents. `late` is the time after a deletion in which workers may still write."""

    def __init__(self, store: ObjectStore, ledger: Ledger | None, lookup: Lookup, *, late: timedelta) -> None:
        self._ledger = ledger
        self._store = store
        self._lookup = lookup
        self._late = late
        #: deleted documents whose objects this process has removed once
        self._emptied: set[str] = set()

    def delete(self, manifest: Manifest, now: datetime) -> None:
        """Delete a document that has ended. May be repeated."""
        self._bury(manifest, now)
        self._unlist(manifest.document, manifest)

    def delete_unless_shared(self, manifest: Manifest, now: datetime, tenant: str) -> bool:
        """Delete a document that only this tenant submitted; return whether another one has submitted it meanwhile, so that it stays.

        A registration writes its submission before it looks for the manifest again, so either side sees the other.
        """
        document = manifest.document
        self._bury(manifest, now)
        if next(foreign_keys(self._store, document, tenant), None) is not None:
            self._store.create(keys.manifest(document), manifest.to_bytes())
            self._store.delete(keys.deleted(document))
            return self.withdraw(manifest, tenant)
        self._unlist(document, manifest, tenant)
        return False

    def withdraw(self, manifest: Manifest, tenant: str) -> bool:
        """Remove a tenant's submissions of a document; return whether others are left. If not, the document can be deleted."""
        document = manifest.document
        if next(foreign_keys(self._store, document, tenant), None) is None:
            return False
        markers = self._unlist_submissions(own_keys(self._store, document, tenant), manifest)
        others = read_submissions(self._store, foreign_keys(self._store, document, tenant))
        waiting = next((submission for submission in others if submission.cancelled is None), None)
        if waiting is not None and markers:
            # The dispatcher must still find the document: under the name of one that wants it.
            terms = waiting.terms
            marker = max(markers, key=lambda marker: marker.generation).model_copy(
                update={"queue": terms.queue, "collection": terms.collection}
            )
            place = keys.waiting(terms.queue, terms.collection, manifest.created, document, marker.generation)
            if self._store.create(place, marker.to_bytes()):
                count_waiting(self._ledger, marker)
        return True

    def remove(self, now: datetime, *, seconds: float) -> int:
        """Remove objects of deleted documents for about so many seconds; return how many. Raises TransientError."""
        until = time.monotonic() + seconds
        removed = 0
        for key in self._store.list(keys.DELETED):
            if time.monotonic() > until:
                break
            try:
                tombstone = Tombstone.from_bytes(self._store.get(key))
            except NotFoundError:
                continue
            except DamagedRecordError as error:
                metrics.DAMAGED_RECORDS.inc()
                log.error("retention.tombstone_damaged", key=key, error=str(error))  # noqa: TRY400
                continue
            removed += self._remove(tombstone, now, until)
        return removed

    def purge(self, what: PurgeKind, *, before: datetime, dry_run: bool, now: datetime) -> Removed:
        """Purge documents that have ended and were registered on a day before that of `before`. Raises TransientError."""
        day = before.strftime("%Y%m%d")
        if what is PurgeKind.UPLOADS:
            return self._purge_uploads(day, dry_run=dry_run)
        states = (State.COMPLETED,) if what is PurgeKind.PAGES else ENDED
        documents = objects = 0
        for document in self._ended_before(day, states):
            try:
                facts = self._lookup.facts(document)
            except (NotFoundError, DamagedRecordError):
                continue
            if facts.state not in states:
                continue
            if what is PurgeKind.PAGES:
                removed = self._remove_all(self._working_keys(document), dry_run=dry_run)
                documents, objects = documents + bool(removed), objects + removed
            else:
                documents += 1
                if not dry_run:
                    self.delete(facts.manifest, now)
        return Removed(documents=documents, objects=objects)

    def _remove(self, tombstone: Tombstone, now: datetime, until: float) -> int:
        """Remove a document's objects until the time is over, and its tombstone when no worker can write any more."""
        document = tombstone.document
        age = now - datetime.strptime(tombstone.deleted, _MOMENT).replace(tzinfo=UTC)
        late = age > self._late
        if self._registered_again(document):
            if age > _REGISTERED_AGAIN:
                self._store.delete(keys.deleted(document))
            return 0
        if document in self._emptied and not late:
            return 0
        self._unlist(document, tombstone)
        removed = 0
        listing = self._store.list(keys.document(document))
        while batch := list(islice(listing, _AT_ONCE)):
            if time.monotonic() > until or self._registered_again(document):
                return removed
            kept = (keys.manifest(document), keys.wanted_by(document))  # written by a new registration
            gone = [key for key in batch if not key.startswith(kept)]
            self._lookup.each(self._store.delete, gone)
            removed += len(gone)
        if late:
            self._store.delete(keys.active(document))  # left by a dispatcher that ended before it saw the deletion
            self._store.delete(keys.deleted(document))
            self._emptied.discard(document)
        else:
            self._emptied.add(document)
        return removed

    def _registered_again(self, document: str) -> bool:
        return self._store.exists(keys.manifest(document))

    def _bury(self, manifest: Manifest, now: datetime) -> None:
        document = manifest.document
        tombstone = Tombstone(document=document, deleted=now.strftime(_MOMENT), created=manifest.created)
        self._store.put(keys.deleted(document), tombstone.to_bytes())
        self._emptied.discard(document)
        self._store.delete(keys.manifest(document))

    def _unlist(self, document: str, known: Manifest | Tombstone, tenant: str | None = None) -> None:
        """Remove a document from all indexes but that of active documents, which belongs to the dispatcher.

        With a tenant, only its submissions are removed.
        """
        created = known.created
        every = self._store.list(keys.wanted_by(document))
        listing = every if tenant is None else own_keys(self._store, document, tenant)
        self._unlist_submissions(listing, known)
        for state in ENDED:
            self._store.delete(keys.ended(state, created[:8], document))
        self._store.delete(keys.undelivered(document))
        release(self._store, document)

    def _unlist_submissions(self, listing: Iterator[str], known: Manifest | Tombstone) -> list[Marker]:
        """Remove submissions with their entries and waiting markers; return these markers."""
        markers = []
        for key in list(listing):
            with suppress(NotFoundError, DamagedRecordError):
                markers += self._unlist_submission(Submission.from_bytes(self._store.get(key)), key, known)
        return markers

    def _unlist_submission(self, submission: Submission, key: str, known: Manifest | Tombstone) -> list[Marker]:
        """Remove a submission with its entry in the listing and its waiting markers; return these markers."""
        document, created = known.document, known.created
        last = latest_status(self._store, document)
        ended = last.generation if last is not None else 0
        collection, queue = submission.terms.collection, submission.terms.queue
        self._store.delete(keys.submission(collection, submission.listed or created, document, submission.digest))
        markers = []
        for generation in (ended, ended + 1):
            waiting = keys.waiting(queue, collection, created, document, generation)
            with suppress(NotFoundError, DamagedRecordError):
                markers.append(Marker.from_bytes(self._store.get(waiting)))
                count_waiting(self._ledger, markers[-1], over=True)
            self._store.delete(waiting)
        self._store.delete(key)
        return markers

    def _ended_before(self, day: str, states: Iterable[State]) -> Iterator[str]:
        """Yield the documents in these states that were registered before a day, by their indexes."""
        for state in states:
            for each in self._store.folders(keys.ended_on(state)):
                if each < day:
                    for key in self._store.list(keys.ended_on(state, each)):
                        yield key.rpartition("/")[2]

    def _working_keys(self, document: str) -> Iterator[str]:
        """Yield the keys of objects that only the assembly of a document needs."""
        for part in ("pages", "climbs", "runs"):
            yield from self._store.list(f"{keys.document(document)}{part}/")

    def _remove_all(self, listing: Iterator[str], *, dry_run: bool) -> int:
        removed = 0
        while batch := list(islice(listing, _AT_ONCE)):
            if not dry_run:
                self._lookup.each(self._store.delete, batch)
            removed += len(batch)
        return removed

    def _purge_uploads(self, day: str, *, dry_run: bool) -> Removed:
        """Remove uploads whose documents have all ended and were registered before a day; not those without a document yet."""
        documents = objects = 0
        uploads = groupby(self._store.list(keys.UPLOADS), key=_upload_of)
        for upload, group in uploads:
            found = list(group)
            references = [key for key in found if key != upload]
            if upload not in found or not references:
                continue
            if all(self._lookup.each(lambda key: self._is_over(key.rpartition("/")[2], day), references)):
                documents, objects = documents + len(references), objects + 1
                if not dry_run:
                    # The bytes first: references that remain after a crash are removed the next time.
                    self._lookup.each(self._store.delete, [upload, *references])
        return Removed(documents=documents, objects=objects)

    def _is_over(self, document: str, day: str) -> bool:
        """Return whether a document no longer needs its sources, and was registered before a day."""
        try:
            facts = self._lookup.facts(document)
        except NotFoundError:
            return True
        except DamagedRecordError:
            return False
        return facts.state not in OPEN and facts.manifest.created[:8] < day


def _upload_of(key: str) -> str:
    """Return the key of an upload from its own key or from that of a reference to it."""
    return key.partition(".refs/")[0]
