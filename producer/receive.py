"""Arrivals onto the intake queue: a few at a time, interactive ones first, collections in turn."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys, metrics
from ocrfleet.jobs import Queue
from ocrfleet.queues import Published, publish_intake

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery import Celery

    from ocrfleet.ledger import Ledger
    from ocrfleet.storage import ObjectStore

log = structlog.get_logger(__name__)

#: Arrivals on the queue or being taken in at most: so few that interactive ones are not kept waiting by bulk.
_AHEAD = 16
#: Arrivals that are known to have been published, of those that came last.
_REMEMBERED = 1000


class Receiver:
    """Publishes the intake of what has arrived. What is on its way is asked of the broker, so nothing stays lost."""

    def __init__(self, store: ObjectStore, ledger: Ledger, app: Celery) -> None:
        self._store = store
        self._app = app
        self._published = Published(ledger.redis)
        #: published at the last look: their messages may be on their way between queue and lease
        self._fresh: set[str] = set()
        #: published of late, before the present look
        self._before: deque[str] = deque(maxlen=_REMEMBERED)
        self._turn = 0

    def tick(self) -> int:
        """Publish what there is room for; return how many. Raises TransientError."""
        on_the_way = self._published.intakes()
        room = _AHEAD - len(on_the_way | self._fresh)
        waiting = (key for key in self._waiting() if key not in on_the_way and key not in self._fresh)
        chosen = list(islice(waiting, max(0, room)))
        if chosen:
            publish_intake(self._app, chosen)
            # One that was published before has vanished from the queue.
            metrics.REPUBLISHED.labels("intake").inc(sum(key in self._before for key in chosen))
            self._before.extend(chosen)
        self._fresh = set(chosen)
        return len(chosen)

    def _waiting(self) -> Iterator[str]:
        """Yield the keys of arrivals: of each class one of every collection in turn, beginning with another each time."""
        self._turn += 1
        for queue in (Queue.INTERACTIVE, Queue.BULK):
            collections = self._store.folders(keys.arrivals(queue))
            if not collections:
                continue
            first = self._turn % len(collections)
            listings = [
                islice(self._store.list(keys.arrivals(queue, collection)), _AHEAD * 2)
                for collection in (*collections[first:], *collections[:first])
            ]
            yield from _in_turn(listings)


def _in_turn(listings: Sequence[Iterator[str]]) -> Iterator[str]:
    """Yield one of each listing, then the next of each."""
    while listings:
        heads = [(listing, next(listing, None)) for listing in listings]
        yield from (key for _, key in heads if key is not None)
        listings = [listing for listing, key in heads if key is not None]
