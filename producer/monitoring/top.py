"""Data of `ocrfleet top`: a snapshot of the fleet, and the recent rate of each worker."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from producer.monitoring.active_documents import ActiveDocumentReader
from producer.monitoring.fleet_snapshot import FleetMonitor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.records.workers import WorkerState
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.monitoring.fleet_snapshot import FleetSnapshot

#: Seconds between two listings of the store; seconds over which rates are measured: several heartbeats.
_INVENTORY_SECONDS, _WINDOW = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class WorkerRate:
    """Recent throughput of a worker per second of time, busy or not; `starved` is a share of the time, 0 to 1."""

    pages: float = 0.0
    tokens: float = 0.0
    starved: float = 0.0


@dataclass(frozen=True, slots=True)
class TopView:
    """A snapshot with the rates of its workers."""

    fleet: FleetSnapshot
    #: by worker name; since a worker became ready, if it has sent only one heartbeat
    rates: Mapping[str, WorkerRate]

    @property
    def rate(self) -> WorkerRate:
        """Sum of the workers' pages and tokens, mean of their starved shares."""
        rates = self.rates.values()
        return WorkerRate(
            pages=sum(rate.pages for rate in rates),
            tokens=sum(rate.tokens for rate in rates),
            starved=sum(rate.starved for rate in rates) / len(rates) if rates else 0.0,
        )


class Top:
    """Watches a fleet from any machine that reaches its Redis and its store."""

    def __init__(self, settings: Settings, store: ObjectStore, ledger: Ledger) -> None:
        self._active = ActiveDocumentReader(store, ledger)
        self._monitor = FleetMonitor(settings, store, ledger, inventory_seconds=_INVENTORY_SECONDS)
        self._history: deque[tuple[float, Mapping[str, WorkerState]]] = deque()

    def close(self) -> None:
        """Stop the threads."""
        self._active.close()

    def look(self) -> TopView:
        """Return the present view. Raises TransientError when Redis or the store is away."""
        fleet = self._monitor.snapshot(self._active.read())
        return TopView(fleet=fleet, rates=self._rates(fleet.workers))

    def _rates(self, workers: Sequence[WorkerState]) -> dict[str, WorkerRate]:
        now = time.monotonic()
        self._history.append((now, {state.worker: state for state in workers}))
        while self._history[0][0] < now - _WINDOW:
            self._history.popleft()
        return {state.worker: self._rate(state) for state in workers}

    def _rate(self, now: WorkerState) -> WorkerRate:
        before = next((states[now.worker] for _, states in self._history if now.worker in states), None)
        if before is None or before.seconds >= now.seconds:
            before = now.model_copy(update={"seconds": 0.0, "pages": 0, "tokens": 0, "starved_seconds": 0.0})
        passed = now.seconds - before.seconds
        if not passed:
            return WorkerRate()
        return WorkerRate(
            pages=(now.pages - before.pages) / passed,
            tokens=(now.tokens - before.tokens) / passed,
            starved=(now.starved_seconds - before.starved_seconds) / passed,
        )
