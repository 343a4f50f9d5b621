"""What lies in the store and waits, counted by listing it: bounded, since an archive is not listed to count it."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError
from ocrfleet.jobs import DocumentStatus, Queue
from ocrfleet.storage import NotFoundError
from producer.register import latest_status

if TYPE_CHECKING:
    from ocrfleet.storage import ObjectStore

#: Of each kind, that are counted.
LIMIT = 10_000
#: Collections of a class that are looked at.
_COLLECTIONS = 1000
#: Documents with failed pages that are looked at, days back to which they were registered, and those read at one look.
_FAILED, _DAYS, _READ = 2000, 7, 200
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Waiting:
    """Documents of a class that nobody has begun."""

    documents: int = 0
    #: of collections that are paused: not among the others
    paused: int = 0
    #: at least; what a document has of them is known once it is begun
    pages: int = 0
    #: when the oldest was registered, as a Unix time; of those that are tried for the first time and are not paused
    oldest: float = math.inf


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was counted at one look."""

    waiting: Mapping[Queue, Waiting]
    arrivals: Mapping[Queue, int]
    undelivered: int
    webhooks_waiting: int
    webhooks_given_up: int
    #: names of collections
    paused: frozenset[str]
    quarantined: Mapping[str, int]


class Stocktaker:
    """Takes inventories of a store. For one thread at a time; raises TransientError when the store is away."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._quarantine = Quarantine(store)

    def take(self) -> Inventory:
        paused = frozenset(key.removeprefix(keys.PAUSED) for key in self._store.list(keys.PAUSED))
        return Inventory(
            waiting={queue: waiting(self._store, queue, paused) for queue in Queue},
            arrivals={queue: self._count(keys.arrivals(queue)) for queue in Queue},
            undelivered=self._count(keys.UNDELIVERED),
            webhooks_waiting=self._count(keys.OUTBOX),
            webhooks_given_up=self._count(keys.GIVEN_UP),
            paused=paused,
            quarantined=self._quarantine.count(datetime.now(UTC)),
        )

    def ended(self, document: str) -> None:
        """Note that a document has ended, perhaps once more: what was known of its failures is old. From any thread."""
        self._quarantine.forget(document)

    def _count(self, prefix: str) -> int:
        return _length(islice(self._store.list(prefix), LIMIT))


def waiting(store: ObjectStore, queue: Queue, paused: frozenset[str]) -> Waiting:
    """Count the documents of a class that wait. A marker does not say how many pages: each counts as one."""
    documents = held = 0
    oldest = math.inf
    for collection in store.folders(keys.waiting_in(queue))[:_COLLECTIONS]:
        markers = store.list(keys.waiting_in(queue, collection))
        if collection in paused:
            held += _length(islice(markers, LIMIT - held))
            continue
        # One at least: the first marker of each collection is its oldest.
        for key in islice(markers, max(1, LIMIT - documents)):
            documents += 1
            created, _, rest = key.rpartition("/")[2].partition("-")
            if rest.endswith("-00001"):
                oldest = min(oldest, registered_at(created))
    return Waiting(documents=documents, paused=held, pages=documents, oldest=oldest)


def registered_at(moment: str) -> float:
    """Return a moment of ours as a Unix time; infinity for what is none."""
    with suppress(ValueError):
        return datetime.strptime(moment, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC).timestamp()
    return math.inf


class Quarantine:
    """Failed pages by reason, of documents that ended with some, were registered of late, and are not tried again.

    How a document ended is read once; a few hundred at each look, so that a leader that has just begun does not keep its
    other duties waiting.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._known: dict[str, Counter[str]] = {}
        self._stale: deque[str] = deque()

    def forget(self, document: str) -> None:
        """Have a document's end read again at the next look. From any thread."""
        self._stale.append(document)

    def count(self, now: datetime) -> dict[str, int]:
        while self._stale:
            self._known.pop(self._stale.popleft(), None)
        documents = list(islice(self._failed(now), _FAILED))
        known = {document: self._known[document] for document in documents if document in self._known}
        unread = [document for document in documents if document not in known][:_READ]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="quarantine") as pool:
            known |= dict(zip(unread, pool.map(self._read, unread), strict=True))
        self._known = known
        return dict(sum(known.values(), Counter[str]()))

    def _failed(self, now: datetime) -> Iterator[str]:
        """Yield the documents with failed pages, the newest days first."""
        for back in range(_DAYS):
            day = (now - timedelta(days=back)).strftime("%Y%m%d")
            for status in (DocumentStatus.PARTIAL, DocumentStatus.FAILED):
                for key in self._store.list(keys.ended_on(status, day)):
                    with suppress(ValueError):
                        yield keys.document_in(key)

    def _read(self, document: str) -> Counter[str]:
        with suppress(NotFoundError, DamagedRecordError):  # it was deleted meanwhile
            status = latest_status(self._store, document)
            if status is not None:
                return Counter(failure.reason.value for failure in status.failures)
        return Counter()


def _length(items: Iterable[object]) -> int:
    return sum(1 for _ in items)
