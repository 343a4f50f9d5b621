"""Snapshot of the fleet: backlog, speed, workers. Shared by `status`, `top` and the leader's gauges."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocrfleet.errors import Reason
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.base import registered_at
from ocrfleet.records.priority import Priority
from producer.monitoring.inventory import Inventory, take_inventory
from producer.state.leader import is_led
from producer.state.speed import speed, time_left

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger, RedisMemory
    from ocrfleet.metrics.definitions import ObservedGauge
    from ocrfleet.metrics.exposition import Values
    from ocrfleet.records.workers import WorkerState
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.state.active import ActiveDocument


@dataclass(frozen=True, slots=True)
class PriorityBacklog:
    """Pages of one priority that are not read yet."""

    waiting: int
    queued: int
    running: int
    #: seconds since the registration of the oldest document with pages that no worker has begun; 0 without one
    oldest: float

    @property
    def pages(self) -> int:
        return self.waiting + self.queued + self.running


@dataclass(frozen=True, slots=True)
class ProfileUse:
    """The workers of a profile, and the active documents that wait for it."""

    workers: int
    #: active documents that are registered with the profile
    documents: int
    #: those of them whose revision of the profile no worker serves
    unserved: int

    @property
    def served(self) -> bool:
        return self.workers > 0 and self.unserved == 0


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """State of the fleet at one moment."""

    #: Unix time
    taken: float
    #: whether a process leads the fleet
    led: bool
    workers: tuple[WorkerState, ...]
    #: assumed pages per second of a worker whose speed is not measured yet
    assumed_speed: float
    backlog: Mapping[Priority, PriorityBacklog]
    #: pages of active documents, by the digest of the profile that they are registered with
    active_pages: Mapping[Priority, Mapping[str, int]]
    #: by name: those that workers serve, and those that active documents need or may be routed to
    profiles: Mapping[str, ProfileUse]
    #: active documents, and pages of them that have failed so far
    active: int
    failed: int
    inventory: Inventory
    redis: RedisMemory

    @property
    def speed(self) -> float:
        """Pages per second of all workers while they are busy; 0 without workers."""
        return speed(self.workers, assumed=self.assumed_speed)

    def seconds_left(self, priority: Priority) -> float:
        """Return the seconds until the workers have read the pages of a priority: those of the slowest profile.

        Profiles of waiting documents are not known without reading each. They are taken to be those of the active documents,
        in the same proportion; without active documents, those of the workers, by their speeds.
        """
        shares: dict[str, float] = dict(self.active_pages[priority])
        if not any(shares.values()):
            for worker in self.workers:
                own = speed([worker], assumed=self.assumed_speed)
                shares[worker.profile_digest] = shares.get(worker.profile_digest, 0.0) + own
        whole, pages = sum(shares.values()), self.backlog[priority].pages
        left = {digest: pages * share / whole for digest, share in shares.items()} if whole else {"": float(pages)}
        return time_left(left, self.workers, assumed=self.assumed_speed)


class FleetMonitor:
    """Takes snapshots of a fleet; lists the store for them no more often than every `inventory_seconds`."""

    def __init__(
        self, settings: Settings, store: ObjectStore, ledger: Ledger, *, inventory_seconds: float = 30.0
    ) -> None:
        self._assumed = settings.pages_per_second
        self._ledger = ledger
        self._store = store
        self._inventory_seconds = inventory_seconds
        self._inventory: tuple[float, Inventory] | None = None

    def snapshot(self, active: Sequence[ActiveDocument]) -> FleetSnapshot:
        """Return the state of the fleet, given its active documents. Raises TransientError when Redis or the store is away."""
        if self._inventory is None or time.monotonic() - self._inventory[0] >= self._inventory_seconds:
            # Timed from its end: a listing that takes long is not started again at once.
            inventory = take_inventory(self._store)
            self._inventory = time.monotonic(), inventory
        inventory = self._inventory[1]
        counted = self._ledger.waiting()
        workers = tuple(self._ledger.workers())
        in_hand = self._ledger.in_hand([(one.document, one.generation) for one in active])
        return FleetSnapshot(
            taken=time.time(),
            led=is_led(self._ledger.redis),
            workers=workers,
            assumed_speed=self._assumed,
            backlog={
                priority: _priority_backlog(priority, active, in_hand, inventory, counted) for priority in Priority
            },
            active_pages={priority: _pages_by_profile(priority, active, inventory) for priority in Priority},
            profiles=_profiles(workers, active),
            active=len(active),
            failed=sum(one.progress.failed for one in active if one.progress is not None),
            inventory=inventory,
            redis=self._ledger.memory(),
        )


def _priority_backlog(
    priority: Priority,
    active: Sequence[ActiveDocument],
    in_hand: Sequence[int],
    inventory: Inventory,
    counted: Mapping[tuple[str, str], int] | None,
) -> PriorityBacklog:
    """Count the pages of a priority; `in_hand` are those that workers hold, `counted` those that wait, where it is known."""
    listed = inventory.waiting[priority]
    waiting, queued, running, oldest = listed.documents, 0, 0, listed.oldest
    if counted is not None:  # until the first count, each document counts as a page
        waiting = sum(
            pages
            for (counted_priority, collection), pages in counted.items()
            if counted_priority == priority and collection not in inventory.paused
        )
    for one, held in zip(active, in_hand, strict=True):
        if one.marker.queue is not priority:
            continue
        published = one.queued()
        read = min(held, published)
        unpublished = _unpublished(one, inventory)
        waiting, queued, running = waiting + unpublished, queued + published - read, running + read
        if unpublished + published > read and one.generation == 1:
            oldest = min(oldest, registered_at(one.manifest.created))
    age = 0.0 if math.isinf(oldest) else max(0.0, time.time() - oldest)
    return PriorityBacklog(waiting=waiting, queued=queued, running=running, oldest=age)


def _pages_by_profile(priority: Priority, active: Sequence[ActiveDocument], inventory: Inventory) -> Mapping[str, int]:
    """Count the pages of active documents of a priority by profile digest."""
    pages: Counter[str] = Counter()
    for one in active:
        if one.marker.queue is priority:
            pages[one.marker.profile_digest] += one.queued() + _unpublished(one, inventory)
    return pages


def _unpublished(one: ActiveDocument, inventory: Inventory) -> int:
    """Return the pages of an active document that are left to publish; none while its collection is paused."""
    if one.marker.collection in inventory.paused:
        return 0
    terminal = one.progress.terminal if one.progress is not None else 0
    return max(0, one.manifest.total - terminal - one.queued())


def _profiles(workers: Sequence[WorkerState], active: Sequence[ActiveDocument]) -> dict[str, ProfileUse]:
    """Return the use of each profile. Workers of another revision (digest) leave a document's pages alone."""
    serving = Counter(state.profile for state in workers)
    served = {(state.profile, state.profile_digest) for state in workers}
    markers = [one.marker for one in active]
    documents = Counter(marker.profile for marker in markers)
    unserved = Counter(marker.profile for marker in markers if (marker.profile, marker.profile_digest) not in served)
    routes = {route for marker in markers for route in marker.routes}
    return {
        profile: ProfileUse(
            workers=serving[profile],
            documents=documents[profile],
            unserved=unserved[profile],
        )
        for profile in sorted({*serving, *documents, *routes})
    }


def gauges_of(snapshot: FleetSnapshot) -> dict[ObservedGauge, Values]:
    """Return the leader's gauges for a snapshot."""
    backlog, inventory = snapshot.backlog, snapshot.inventory
    serving = Counter(state.profile for state in snapshot.workers)
    return {
        metrics.WORKERS: {(profile,): float(count) for profile, count in serving.items()},
        metrics.FLEET_SPEED: {(): snapshot.speed},
        metrics.BACKLOG_PAGES: {
            (priority.value, state): float(pages)
            for priority, counts in backlog.items()
            for state, pages in (("waiting", counts.waiting), ("queued", counts.queued), ("running", counts.running))
        },
        metrics.BACKLOG_SECONDS: {(priority.value,): snapshot.seconds_left(priority) for priority in backlog},
        metrics.OLDEST_WAITING: {(priority.value,): counts.oldest for priority, counts in backlog.items()},
        metrics.DOCUMENTS: {
            ("waiting",): float(sum(waiting.documents for waiting in inventory.waiting.values())),
            ("paused",): float(sum(waiting.paused for waiting in inventory.waiting.values())),
            ("active",): float(snapshot.active),
            ("undelivered",): float(inventory.undelivered),
        },
        metrics.ARRIVALS: {(priority.value,): float(count) for priority, count in inventory.arrivals.items()},
        metrics.OLDEST_ARRIVAL: {
            (priority.value,): max(0.0, snapshot.taken - min(submitted, snapshot.taken))
            for priority, submitted in inventory.oldest_arrival.items()
        },
        metrics.WEBHOOKS: {
            ("waiting",): float(inventory.webhooks_waiting),
            ("given_up",): float(inventory.webhooks_given_up),
        },
        metrics.QUARANTINED: {(Reason.WORKER_DIED.value,): float(inventory.quarantined)},
        metrics.REDIS_MEMORY_USED: {(): float(snapshot.redis.used)},
        metrics.REDIS_MEMORY_MAX: {(): float(snapshot.redis.most)},
        metrics.REDIS_EVICTED: {(): float(snapshot.redis.evicted)},
    }
