"""The intake scheduler: publishes intake batches to the intake queue, interactive ones first; tenants take turns, and the collections of each.

A batch whose sources can't be fetched now is published again after a pause, which doubles each time; others go on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import structlog

from ocrfleet import keys
from ocrfleet.broker.celery_app import publish_intake
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.priority import Priority
from ocrfleet.records.tenants import tenant_of
from producer.intake.batches import client_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from celery import Celery

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

#: Batches in flight (on the queue or at a consumer): few, so that bulk batches do not hold up interactive ones.
_MAX_IN_FLIGHT = 16
#: Those of one client: three quarters, so that other clients' batches get to a consumer.
_OF_A_CLIENT = 12
#: Batches of clients with so many in flight that are passed over, before the turn of their tenant ends.
_PASSED_OVER = 100
#: Batches of a collection that are listed: when so many of them pause, the rest of the collection waits.
_LISTED = 1000
#: Seconds before a batch is published again: doubled each time, up to the second number.
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 300.0


@dataclass(slots=True)
class _Attempts:
    """The attempts at one batch."""

    #: consecutive attempts
    number: int
    #: end of the pause on the clock; None while the batch is in flight
    paused_until: float | None
    #: when the batch was published last
    last: float


class IntakeScheduler:
    """Publishes intake batches. The broker is asked which are in flight, so a lost message is published again."""

    def __init__(
        self, store: ObjectStore, ledger: Ledger, app: Celery, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._app = app
        self._published = MessageInspector(ledger.redis)
        #: published in the last tick: a message may be between queue and lease, where no look finds it
        self._last_published: set[str] = set()
        self._attempts: dict[str, _Attempts] = {}
        self._turn = 0

    def tick(self) -> int:
        """Publish batches up to the limit in flight; return how many. Raises TransientError."""
        in_flight = self._published.intakes() | self._last_published
        chosen = list(islice(self._waiting(in_flight), max(0, _MAX_IN_FLIGHT - len(in_flight))))
        if chosen:
            publish_intake(self._app, chosen)
            metrics.REPUBLISHED.labels("intake").inc(sum(key in self._attempts for key in chosen))
        self._last_published = set(chosen)
        self._note(chosen, in_flight)
        return len(chosen)

    def _note(self, chosen: Iterable[str], in_flight: set[str]) -> None:
        """Record the attempts; drop batches that have not come back for long, which are done."""
        now = self._clock()
        for key, attempts in list(self._attempts.items()):
            if key not in in_flight and now - attempts.last > 2 * _LONGEST_PAUSE:
                del self._attempts[key]
        for key in chosen:
            number = self._attempts[key].number if key in self._attempts else 0
            self._attempts[key] = _Attempts(number + 1, None, now)

    def _is_due(self, key: str) -> bool:
        """Return whether a batch that is not in flight may be published; begin the pause of one that came back."""
        attempts = self._attempts.get(key)
        if attempts is None:
            return True
        if attempts.paused_until is None:
            # The pause begins now: the attempt may have taken long, e.g. when a server did not answer.
            pause = min(_FIRST_PAUSE * 2 ** (attempts.number - 1), _LONGEST_PAUSE)
            attempts.last = self._clock()
            attempts.paused_until = attempts.last + pause
        return self._clock() >= attempts.paused_until

    def _waiting(self, in_flight: set[str]) -> Iterator[str]:
        """Yield the keys of batches that are due: by priority, one of each tenant in turn, beginning with another each time."""
        self._turn += 1
        held = Counter(map(client_of, in_flight))
        for queue in (Priority.INTERACTIVE, Priority.BULK):
            of_tenants: dict[str, list[str]] = {}
            for collection in self._store.folders(keys.arrivals(queue)):
                of_tenants.setdefault(tenant_of(collection), []).append(collection)
            turn = self._turn // max(1, len(of_tenants))
            listings = [
                self._of_tenant(queue, _beginning_with(turn, collections), in_flight, held)
                for collections in of_tenants.values()
            ]
            yield from _in_turn(_beginning_with(self._turn, listings))

    def _of_tenant(
        self, queue: Priority, collections: Sequence[str], in_flight: set[str], held: Counter[str]
    ) -> Iterator[str]:
        """Yield the keys of a tenant's batches that are due, one of each collection in turn; count them as held by their clients."""
        passed_over = 0
        for key in _in_turn([self._due(queue, collection, in_flight) for collection in collections]):
            client = client_of(key)
            if client and held[client] >= _OF_A_CLIENT:
                passed_over += 1
                if passed_over == _PASSED_OVER:
                    return
            else:
                held[client] += 1
                yield key

    def _due(self, queue: Priority, collection: str, in_flight: set[str]) -> Iterator[str]:
        for key in islice(self._store.list(keys.arrivals(queue, collection)), _LISTED):
            if key not in in_flight and self._is_due(key):
                yield key


def _beginning_with(number: int, things: Sequence[_T]) -> Sequence[_T]:
    """Return things in their order, but beginning with another one for each number."""
    first = number % len(things) if things else 0
    return (*things[first:], *things[:first])


def _in_turn(listings: Sequence[Iterator[str]]) -> Iterator[str]:
    """Yield the first of each listing, then the second of each, and so on; a listing is begun when it is its turn."""
    while listings:
        left = []
        for listing in listings:
            if (key := next(listing, None)) is not None:
                left.append(listing)
                yield key
        listings = left
