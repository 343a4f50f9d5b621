"""What lies in the store and waits, counted by listing it: bounded, since an archive is not listed to count it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.records.base import Priority, registered_at

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore

#: Of each kind, that are counted.
LIMIT = 10_000
#: Collections of a class that are looked at.
_COLLECTIONS = 1000


@dataclass(frozen=True, slots=True)
class Waiting:
    """Documents of a class that nobody has begun."""

    documents: int = 0
    #: of collections that are paused: not among the others
    paused: int = 0
    #: when the oldest was registered, as a Unix time; of those that are tried for the first time and are not paused
    oldest: float = math.inf


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was counted at one look."""

    waiting: Mapping[Priority, Waiting]
    arrivals: Mapping[Priority, int]
    undelivered: int
    webhooks_waiting: int
    webhooks_given_up: int
    #: pages that workers died of
    quarantined: int
    #: names of collections
    paused: frozenset[str]


def take_inventory(store: ObjectStore) -> Inventory:
    """Count what waits in a store. Raises TransientError when it is away."""

    def count(prefix: str) -> int:
        return _length(islice(store.list(prefix), LIMIT))

    paused = frozenset(key.removeprefix(keys.PAUSED) for key in store.list(keys.PAUSED))
    return Inventory(
        waiting={queue: waiting(store, queue, paused) for queue in Priority},
        arrivals={queue: count(keys.arrivals(queue)) for queue in Priority},
        undelivered=count(keys.UNDELIVERED),
        webhooks_waiting=count(keys.OUTBOX),
        webhooks_given_up=count(keys.GIVEN_UP),
        quarantined=count(keys.QUARANTINED),
        paused=paused,
    )


def waiting(store: ObjectStore, queue: Priority, paused: frozenset[str]) -> Waiting:
    """Count the documents of a class that wait, up to `LIMIT` of them."""
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
    return Waiting(documents=documents, paused=held, oldest=oldest)


def _length(items: Iterable[object]) -> int:
    return sum(1 for _ in items)
