"""Arrivals onto the intake queue: a few at a time, interactive ones first, collections in turn.

One that comes back, as its sources can't be had now, rests before it is published again, longer each time: meanwhile the
others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.broker.celery_app import publish_intake
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.base import Priority

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from celery import Celery

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Arrivals on the queue or being taken in at most: so few that interactive ones are not kept waiting by bulk.
_AHEAD = 16
#: Arrivals of a collection that are looked at: behind so many that rest, the others of theirs wait.
_LOOKED_AT = 1000
#: Seconds that one rests which came back, doubled each time, and at most.
_FIRST_REST, _LONGEST_REST = 2.0, 300.0


@dataclass(slots=True)
class _Tried:
    """An arrival that was published."""

    #: in a row
    times: int
    #: until when it rests; None while it is on its way
    rests: float | None
    #: when it was published
    last: float


class IntakeScheduler:
    """Publishes the intake of what has arrived. What is on its way is asked of the broker, so nothing stays lost."""

    def __init__(
        self, store: ObjectStore, ledger: Ledger, app: Celery, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._app = app
        self._published = MessageInspector(ledger.redis)
        #: published at the last look: their messages may be on their way between queue and lease
        self._fresh: set[str] = set()
        self._tried: dict[str, _Tried] = {}
        self._turn = 0

    def tick(self) -> int:
        """Publish what there is room for; return how many. Raises TransientError."""
        on_the_way = self._published.intakes() | self._fresh
        chosen = list(islice(self._waiting(on_the_way), max(0, _AHEAD - len(on_the_way))))
        if chosen:
            publish_intake(self._app, chosen)
            metrics.REPUBLISHED.labels("intake").inc(sum(key in self._tried for key in chosen))
        self._fresh = set(chosen)
        self._note(chosen, on_the_way)
        return len(chosen)

    def _note(self, chosen: Iterable[str], on_the_way: set[str]) -> None:
        """Note what was published, and forget what has not come back for long: it was taken in."""
        now = self._clock()
        for key, tried in list(self._tried.items()):
            if key not in on_the_way and now - tried.last > 2 * _LONGEST_REST:
                del self._tried[key]
        for key in chosen:
            times = self._tried[key].times if key in self._tried else 0
            self._tried[key] = _Tried(times + 1, None, now)

    def _is_due(self, key: str) -> bool:
        """Say whether an arrival that is not on its way may be published; let one that has just come back rest."""
        tried = self._tried.get(key)
        if tried is None:
            return True
        if tried.rests is None:
            # As it may have been away for long, e.g. for a server that does not answer, it is noted when it is seen.
            rest = min(_FIRST_REST * 2 ** (tried.times - 1), _LONGEST_REST)
            tried.last = self._clock()
            tried.rests = tried.last + rest
        return self._clock() >= tried.rests

    def _waiting(self, on_the_way: set[str]) -> Iterator[str]:
        """Yield the keys of those that are due: of each class one of every collection in turn, each time from another on."""
        self._turn += 1
        for queue in (Priority.INTERACTIVE, Priority.BULK):
            collections = self._store.folders(keys.arrivals(queue))
            if not collections:
                continue
            first = self._turn % len(collections)
            in_turn = (*collections[first:], *collections[:first])
            yield from _in_turn([self._due(queue, collection, on_the_way) for collection in in_turn])

    def _due(self, queue: Priority, collection: str, on_the_way: set[str]) -> Iterator[str]:
        for key in islice(self._store.list(keys.arrivals(queue, collection)), _LOOKED_AT):
            if key not in on_the_way and self._is_due(key):
                yield key


def _in_turn(listings: Sequence[Iterator[str]]) -> Iterator[str]:
    """Yield one of each listing, then the next of each."""
    while listings:
        heads = [(listing, next(listing, None)) for listing in listings]
        yield from (key for _, key in heads if key is not None)
        listings = [listing for listing, key in heads if key is not None]
