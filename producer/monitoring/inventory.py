"""Inventory: counts waiting documents, batches and webhooks in the store, by listings up to a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.records.base import registered_at
from ocrfleet.records.priority import Priority

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore

#: The most objects of each kind that are counted.
LIMIT = 10_000
#: The most collections of a priority that are listed.
_COLLECTIONS = 1000
#: The most waiting documents of each collection that `waiting_by_collection` counts.
COLLECTION_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class WaitingDocuments:
    """Documents of a priority that are not dispatched yet."""

    documents: int = 0
    #: documents of paused collections: not among the others
    paused: int = 0
    #: Unix time of the oldest registration, among documents of generation 1 whose collection is not paused
    oldest: float = math.inf


@dataclass(frozen=True, slots=True)
class Inventory:
    """Counts at one moment, each at most `LIMIT`."""

    waiting: Mapping[Priority, WaitingDocuments]
    arrivals: Mapping[Priority, int]
    #: Unix time of the oldest intake batch of each priority; infinity without one
    oldest_arrival: Mapping[Priority, float]
    undelivered: int
    webhooks_waiting: int
    webhooks_given_up: int
    #: pages in quarantine
    quarantined: int
    #: names of paused collections
    paused: frozenset[str]


def take_inventory(store: ObjectStore) -> Inventory:
    """List a store and return the counts. Raises TransientError when it is away."""

    def count(prefix: str) -> int:
        return _length(islice(store.list(prefix), LIMIT))

    arrivals = {queue: list(islice(store.list(keys.arrivals(queue)), LIMIT)) for queue in Priority}
    paused = frozenset(key.removeprefix(keys.PAUSED) for key in store.list(keys.PAUSED))
    return Inventory(
        waiting={queue: waiting(store, queue, paused) for queue in Priority},
        arrivals={queue: len(batches) for queue, batches in arrivals.items()},
        oldest_arrival={
            queue: min(map(_submitted_at, batches), default=math.inf) for queue, batches in arrivals.items()
        },
        undelivered=count(keys.UNDELIVERED),
        webhooks_waiting=count(keys.OUTBOX),
        webhooks_given_up=count(keys.GIVEN_UP),
        quarantined=count(keys.QUARANTINED),
        paused=paused,
    )


def waiting(store: ObjectStore, queue: Priority, paused: frozenset[str]) -> WaitingDocuments:
    """Count the waiting documents of a priority, up to `LIMIT` of them."""
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
    return WaitingDocuments(documents=documents, paused=held, oldest=oldest)


def waiting_by_collection(store: ObjectStore) -> dict[str, dict[str, int]]:
    """Count the waiting documents by priority and collection, `COLLECTION_LIMIT` of each collection at most.

    Paused collections are included. Raises TransientError when the store is away.
    """
    return {
        queue.value: {
            collection: _length(islice(store.list(keys.waiting_in(queue, collection)), COLLECTION_LIMIT))
            for collection in store.folders(keys.waiting_in(queue))
        }
        for queue in Priority
    }


def _submitted_at(arrival: str) -> float:
    return registered_at(keys.arrival_name(arrival).partition("-")[0])


def _length(items: Iterable[object]) -> int:
    return sum(1 for _ in items)
