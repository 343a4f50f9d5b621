"""Collections: the state of each source, and a forecast of the time left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, TransientError
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeBatch, Submission
from producer.delivery.finisher import Undelivered
from producer.documents.lookup import DocumentFacts, Lookup, reasons_of
from producer.documents.views import OPEN, Forecast, SourceRow, State
from producer.state.leader import NO_LEADER, is_led
from producer.state.speed import is_measured, time_left

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore

#: Sources that are read in one batch.
_AT_ONCE = 256
#: Waiting documents whose pages are counted for a forecast; the others are extrapolated from these.
_COUNTED = 1000
#: Waiting documents, and intake batches, that are listed for a forecast at most.
_LISTED = 100_000
_ARRIVALS = 1000

_ITEM = TypeVar("_ITEM")


class CollectionReader:
    """Reads collections from the store's indexes. Each call may raise TransientError."""

    def __init__(self, store: ObjectStore, ledger: Ledger | None, lookup: Lookup, *, assumed_speed: float) -> None:
        self._store = store
        self._ledger = ledger
        self._lookup = lookup
        self._assumed_speed = assumed_speed

    def report(self, collection: str) -> Iterator[SourceRow]:
        """Yield each source; only a batch of them is in memory.

        A source whose intake ends meanwhile may come twice, as arriving and as a document; none is left out.
        """
        # Intake batches first: a source whose intake ends meanwhile is then found among the submissions.
        yield from self._arriving(collection)
        for batch in _batches(self._store.list(keys.submissions(collection)), _AT_ONCE):
            found = self._lookup.each(self._source, batch)
            progress = iter(self._lookup.progress([facts for _, facts in found if isinstance(facts, DocumentFacts)]))
            for submission, facts in found:
                if isinstance(facts, DocumentFacts) and isinstance(submission, Submission):
                    yield _row(submission, facts, *next(progress))
                elif isinstance(submission, SourceRow):
                    yield submission

    def forecast(self, collection: str) -> Forecast:
        """Return how much is left, and the time that it takes at the speed of the workers. Counts are limited."""
        left: dict[tuple[str, str], float] = defaultdict(float)
        documents, finishing, exact = self._waiting(collection, left)
        marked = self._active(collection)
        active = [facts for facts in marked if facts.state is State.ACTIVE]
        finishing += sum(facts.state not in OPEN for facts in marked)
        for facts, (done, failed) in zip(active, self._lookup.progress(active), strict=True):
            manifest = facts.manifest
            left[manifest.profile, manifest.profile_digest] += max(0, manifest.total - done - failed)
        arriving, counted = self._count_arriving(collection)
        pages = round(sum(left.values()))
        known = {
            "documents": documents + len(active),
            "pages": pages,
            "exact": exact and counted,
            "arriving": arriving,
            "finishing": finishing,
        }
        if self._store.exists(keys.paused(collection)):
            return Forecast(reason="the collection is paused: resume it", **known)
        if (documents or active or arriving or finishing) and not self._led():
            return Forecast(reason=NO_LEADER, **known)
        if not pages:
            reason = "the pages of sources that wait for intake are not counted yet" if arriving else None
            return Forecast(seconds=None if arriving else 0.0, reason=reason, **known)
        return self._time_for(left).model_copy(update=known)

    def _led(self) -> bool:
        """Return whether a process leads; true when Redis is away, which is reported otherwise."""
        if self._ledger is None:
            return True
        try:
            return is_led(self._ledger.redis)
        except TransientError:
            return True

    def _source(self, key: str) -> tuple[Submission | SourceRow | None, DocumentFacts | None]:
        """Return a submission and its document; or a row, where nothing else has to be read."""
        try:
            submission = Submission.from_bytes(self._store.get(key))
        except NotFoundError:
            return None, None  # deleted meanwhile
        except DamagedRecordError as error:
            return SourceRow(name=key, uri="", state=State.DAMAGED, reasons=str(error)), None
        known = {"name": submission.name, "uri": submission.uri, "document": submission.document}
        try:
            completed = self._lookup.completed(submission.document)
            if completed is not None:
                row = SourceRow(
                    state=State.COMPLETED,
                    total=completed.total,
                    done=completed.done,
                    review=len(completed.review),
                    **known,
                )
                return row, None
            return submission, self._lookup.facts(submission.document, submission=submission)
        except NotFoundError:
            return SourceRow(state=State.DELETED, **known), None
        except DamagedRecordError as error:
            return SourceRow(state=State.DAMAGED, reasons=str(error), **known), None

    def _arriving(self, collection: str) -> Iterator[SourceRow]:
        for queue in Priority:
            arrivals = keys.arrivals(queue, collection)
            for key in self._store.list(arrivals):
                try:
                    arrival = IntakeBatch.from_bytes(self._store.get(key))
                except NotFoundError:
                    continue
                except DamagedRecordError as error:
                    yield SourceRow(name=key, uri="", state=State.DAMAGED, reasons=str(error))
                    continue
                for reference in arrival.wishes:
                    yield SourceRow(name=reference.name, uri=reference.uri, state=State.ARRIVING)
            for key in self._store.list(keys.refused(arrivals)):
                yield SourceRow(
                    name=key, uri="", state=State.DAMAGED, reasons="refused by intake: see its log, correct it"
                )

    def sources(self, collection: str) -> int:
        """Return the number of sources, without reading them."""
        arriving, _ = self._count_arriving(collection)
        return arriving + sum(1 for _ in self._store.list(keys.submissions(collection)))

    def undelivered(self, collection: str) -> Iterator[Undelivered]:
        """Yield the documents whose results could not be delivered."""
        for key in self._store.list(keys.UNDELIVERED):
            with suppress(NotFoundError, DamagedRecordError):
                left = Undelivered.from_bytes(self._store.get(key))
                if _wanted_in(self._lookup.facts(left.document), collection):
                    yield left

    def _waiting(self, collection: str, left: dict[tuple[str, str], float]) -> tuple[int, int, bool]:
        """Add the pages of waiting documents to `left`, by profile.

        Return the number of these documents, the number of those that have ended and are delivered again, and whether all were
        counted.
        """
        waiting = (key for queue in Priority for key in self._store.list(keys.waiting_in(queue, collection)))
        counted = list(islice(waiting, _COUNTED))
        others = sum(1 for _ in islice(waiting, _LISTED - len(counted)))
        marked = [facts for facts in self._lookup.each(self._facts, counted) if facts is not None]
        found = [facts for facts in marked if facts.state is State.WAITING]
        finishing = sum(facts.state not in OPEN for facts in marked)
        scale = 1 + others / max(1, len(counted))
        for facts, (done, failed) in zip(found, self._lookup.progress(found), strict=True):
            manifest = facts.manifest
            left[manifest.profile, manifest.profile_digest] += (manifest.total - done - failed) * scale
        return round(len(found) * scale), finishing, not others

    def _active(self, collection: str) -> list[DocumentFacts]:
        """Return the documents of a collection with an active marker: the backlog limit bounds them."""
        found = [
            facts
            for batch in _batches(self._store.list(keys.ACTIVE), _AT_ONCE)
            for facts in self._lookup.each(self._facts, batch)
        ]
        return [facts for facts in found if facts is not None and _wanted_in(facts, collection)]

    def _facts(self, key: str) -> DocumentFacts | None:
        """Return the document of a marker; None when it is gone or damaged."""
        try:
            return self._lookup.facts(keys.document_in(key))
        except (NotFoundError, DamagedRecordError, ValueError):
            return None

    def _count_arriving(self, collection: str) -> tuple[int, bool]:
        """Return the number of sources that wait for intake, and whether all were counted."""
        arrivals = (key for queue in Priority for key in self._store.list(keys.arrivals(queue, collection)))
        sources = sum(self._lookup.each(self._count_references, list(islice(arrivals, _ARRIVALS))))
        return sources, next(arrivals, None) is None

    def _count_references(self, key: str) -> int:
        try:
            return len(IntakeBatch.from_bytes(self._store.get(key)).wishes)
        except (NotFoundError, DamagedRecordError):
            return 0

    def _time_for(self, left: dict[tuple[str, str], float]) -> Forecast:
        """Return the time that the workers of each profile take for its pages, or the reason why it is not known."""
        if self._ledger is None:
            return Forecast(reason="the workers are unknown: there is no Redis")
        try:
            workers = self._ledger.workers()
        except TransientError as error:
            return Forecast(reason=f"the workers are unknown: {error}")
        pages = {digest: count for (_, digest), count in left.items() if count}
        serving = [worker for worker in workers if worker.profile_digest in pages]
        served = {worker.profile_digest for worker in serving}
        for (profile, digest), count in left.items():
            if count and digest not in served:
                return Forecast(reason=f"no worker serves {profile}: start one")
        seconds = time_left(pages, serving, assumed=self._assumed_speed)
        return Forecast(seconds=seconds, assumed=not all(map(is_measured, serving)))


def _wanted_in(facts: DocumentFacts, collection: str) -> bool:
    return any(submission.terms.collection == collection for submission in facts.submissions)


def _row(submission: Submission, facts: DocumentFacts, done: int, failed: int) -> SourceRow:
    return SourceRow(
        name=submission.name,
        uri=submission.uri,
        document=facts.document,
        state=facts.state,
        total=facts.manifest.total,
        done=done,
        failed=failed,
        review=len(facts.status.review) if facts.status is not None and facts.state not in OPEN else 0,
        reasons=reasons_of(facts.status) if facts.status is not None and facts.state not in OPEN else "",
    )


def _batches(items: Iterable[_ITEM], size: int) -> Iterator[list[_ITEM]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
