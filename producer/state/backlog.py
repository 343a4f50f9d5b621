"""How many pages may be on the queue: some minutes of the fleet's work, as fast as it was measured to be."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import DamagedRecordError, NotFoundError, OcrfleetError, TransientError
from ocrfleet.records.base import Priority
from ocrfleet.records.documents import Marker
from ocrfleet.storage.store import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocrfleet.records.workers import WorkerState
    from ocrfleet.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds between two counts: what was counted as it came and went is right but for those who were killed in between.
_EVERY = 6 * 3600.0
#: Requests at the same time, and markers that are asked for in one go.
_THREADS, _BATCH = 8, 1000

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


def count_waiting(ledger: Ledger | None, marker: Marker, *, over: bool = False) -> None:
    """Count a document among those that wait, or as one that does no longer. A hint: Redis may be away."""
    if ledger is not None:
        with suppress(TransientError):
            ledger.wait(marker.queue, marker.collection, -marker.pages if over else marker.pages)


class Recount:
    """Counts what waits in the store, in a thread of its own, when Redis does not know it or it was counted long ago."""

    def __init__(self, store: ObjectStore, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._counted = time.monotonic()
        self._thread: threading.Thread | None = None

    def begin_if_due(self) -> None:
        """Begin to count if it is time. Raises TransientError."""
        if self._thread is not None and self._thread.is_alive():
            return
        if self._ledger.waiting() is None or time.monotonic() - self._counted > _EVERY:
            self._thread = threading.Thread(target=self._run, name="recount", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            waiting = count(self._store)
            self._ledger.counted(waiting)
        except OcrfleetError as error:
            log.warning("what waits can't be counted now", error=str(error))
            return
        self._counted = time.monotonic()
        log.info("counted what waits", pages=sum(waiting.values()))


def count(store: ObjectStore) -> dict[tuple[str, str], int]:
    """Return the pages that wait in a store, by queue and collection. Raises TransientError.

    A request for each waiting document: some minutes for a million of them.
    """
    pages: Counter[tuple[str, str]] = Counter()

    def add(key: str) -> None:
        with suppress(NotFoundError, DamagedRecordError):  # begun meanwhile, or told of by the dispatcher
            marker = Marker.from_bytes(store.get(key))
            pages[marker.queue, marker.collection] += marker.pages

    with ThreadPoolExecutor(_THREADS) as pool:
        for queue in Priority:
            for collection in store.folders(keys.waiting_in(queue)):
                markers = iter(store.list(keys.waiting_in(queue, collection)))
                while batch := list(islice(markers, _BATCH)):
                    list(pool.map(add, batch))
    return dict(pages)
