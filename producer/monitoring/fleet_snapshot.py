"""How a fleet does: what is to be read, who reads it, how fast, and what waits for somebody. For metrics and for `top`."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocrfleet.errors import Reason
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.base import Priority, registered_at
from producer.monitoring.inventory import Inventory, Waiting, take_inventory
from producer.state.backlog import speed

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger, RedisMemory
    from ocrfleet.metrics.definitions import Observed
    from ocrfleet.metrics.exposition import Values
    from ocrfleet.records.workers import WorkerState
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.state.active import Active


@dataclass(frozen=True, slots=True)
class Lane:
    """What is to be read of one class, in pages."""

    waiting: int
    queued: int
    running: int
    #: seconds for which the oldest document has been waiting that has pages nobody has begun
    oldest: float

    @property
    def pages(self) -> int:
        return self.waiting + self.queued + self.running


@dataclass(frozen=True, slots=True)
class Outlook:
    """What was seen at one look."""

    workers: tuple[WorkerState, ...]
    #: pages a second of all workers
    speed: float
    #: that speed, or what one worker is assumed to do where there is none
    hoped: float
    lanes: Mapping[Priority, Lane]
    active: int
    inventory: Inventory
    redis: RedisMemory

    def seconds_left(self, queue: Priority) -> float:
        return self.lanes[queue].pages / self.hoped


class Looker:
    """Looks at a fleet again and again; at what must be listed no more often than every `stocktaking` seconds."""

    def __init__(self, settings: Settings, store: ObjectStore, ledger: Ledger, *, stocktaking: float = 30.0) -> None:
        self._assumed = settings.pages_per_second
        self._ledger = ledger
        self._store = store
        self._every = stocktaking
        self._taken: tuple[float, Inventory] | None = None

    def look(self, active: Sequence[Active]) -> Outlook:
        """Return how the fleet does that works on these documents. Raises TransientError when Redis or the store is away."""
        if self._taken is None or time.monotonic() - self._taken[0] >= self._every:
            # From its end: where listing takes long, it is not begun again at once.
            inventory = take_inventory(self._store)
            self._taken = time.monotonic(), inventory
        inventory = self._taken[1]
        counted = self._ledger.waiting()
        workers = tuple(self._ledger.workers())
        in_hand = self._ledger.in_hand([(one.document, one.generation) for one in active])
        fleet = speed(workers, assumed=self._assumed)
        return Outlook(
            workers=workers,
            speed=fleet,
            hoped=fleet or self._assumed,
            lanes={queue: _lane(queue, active, in_hand, inventory, counted) for queue in Priority},
            active=len(active),
            inventory=inventory,
            redis=self._ledger.memory(),
        )


def _lane(
    queue: Priority,
    active: Sequence[Active],
    in_hand: Sequence[int],
    inventory: Inventory,
    counted: Mapping[tuple[str, str], int] | None,
) -> Lane:
    waits: Waiting = inventory.waiting[queue]
    waiting, queued, running, oldest = waits.documents, 0, 0, waits.oldest
    if counted is not None:  # until then each document counts as a page
        places = ((place, collection, pages) for (place, collection), pages in counted.items())
        waiting = sum(
            pages for place, collection, pages in places if place == queue and collection not in inventory.paused
        )
    for one, held in zip(active, in_hand, strict=True):
        if one.marker.queue is not queue:
            continue
        handed = one.queued()
        read = min(held, handed)
        terminal = one.progress.terminal if one.progress is not None else 0
        left = 0 if one.marker.collection in inventory.paused else max(0, one.manifest.total - terminal - handed)
        waiting, queued, running = waiting + left, queued + handed - read, running + read
        if left + handed > read and one.generation == 1:
            oldest = min(oldest, registered_at(one.manifest.created))
    age = 0.0 if math.isinf(oldest) else max(0.0, time.time() - oldest)
    return Lane(waiting=waiting, queued=queued, running=running, oldest=age)


def observed(outlook: Outlook) -> dict[Observed, Values]:
    """Return what was seen as the leader's gauges."""
    lanes, inventory = outlook.lanes, outlook.inventory
    serving = Counter(state.profile for state in outlook.workers)
    return {
        metrics.WORKERS: {(profile,): float(count) for profile, count in serving.items()},
        metrics.FLEET_SPEED: {(): outlook.speed},
        metrics.BACKLOG_PAGES: {
            (queue.value, state): float(pages)
            for queue, lane in lanes.items()
            for state, pages in (("waiting", lane.waiting), ("queued", lane.queued), ("running", lane.running))
        },
        metrics.BACKLOG_SECONDS: {(queue.value,): outlook.seconds_left(queue) for queue in lanes},
        metrics.OLDEST_WAITING: {(queue.value,): lane.oldest for queue, lane in lanes.items()},
        metrics.DOCUMENTS: {
            ("waiting",): float(sum(waits.documents for waits in inventory.waiting.values())),
            ("paused",): float(sum(waits.paused for waits in inventory.waiting.values())),
            ("active",): float(outlook.active),
            ("undelivered",): float(inventory.undelivered),
        },
        metrics.ARRIVALS: {(queue.value,): float(count) for queue, count in inventory.arrivals.items()},
        metrics.WEBHOOKS: {
            ("waiting",): float(inventory.webhooks_waiting),
            ("given_up",): float(inventory.webhooks_given_up),
        },
        metrics.QUARANTINED: {(Reason.WORKER_DIED.value,): float(inventory.quarantined)},
        metrics.REDIS_MEMORY_USED: {(): float(outlook.redis.used)},
        metrics.REDIS_MEMORY_MAX: {(): float(outlook.redis.most)},
        metrics.REDIS_EVICTED: {(): float(outlook.redis.evicted)},
    }
