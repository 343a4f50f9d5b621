"""How many pages may be on the queue: some minutes of the fleet's work, as fast as it was measured to be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.records.workers import WorkerState
    from ocrfleet.settings import Settings

#: Pages at least: enough for the jobs that a slow fleet has in hand, and for those behind them.
_LEAST = 256
#: Busy seconds after which a worker's own speed is believed.
_MEASURED = 30.0


def speed(workers: Iterable[WorkerState], *, assumed: float) -> float:
    """Return the pages per second that these workers read while they have any, `assumed` for one not measured yet."""
    return sum(
        worker.pages / worker.busy_seconds if worker.busy_seconds >= _MEASURED and worker.pages else assumed
        for worker in workers
    )


class Backlog:
    """The limit of pages on the queue. Without a worker it is that of one: there is work for whoever comes."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger = ledger
        self._settings = settings

    def limit(self) -> int:
        """Return it, in pages. Raises TransientError."""
        if self._settings.backlog_pages is not None:
            return self._settings.backlog_pages
        assumed = self._settings.pages_per_second
        fleet = speed(self._ledger.workers(), assumed=assumed) or assumed
        return max(_LEAST, math.ceil(fleet * self._settings.backlog_seconds))
