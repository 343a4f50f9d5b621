"""Backlog: the limit of pages on the queue, and the count of pages that wait in the store."""

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
from ocrfleet.records.documents import Marker
from ocrfleet.records.priority import Priority
from ocrfleet.storage.store import ObjectStore
from producer.state.speed import speed

if TYPE_CHECKING:
    from ocrfleet.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds between two full counts. In between, the count in Redis is kept up to date, except by processes that were killed.
_RECOUNT_SECONDS = 6 * 3600.0
#: Requests in flight, and markers that are read in one batch.
_THREADS, _BATCH = 8, 1000

#: Pages of the limit at least: enough for the jobs that a slow fleet has in hand, and for those behind them.
_LOWEST_LIMIT = 256


class Backlog:
    """Limit of the pages on the queue: some minutes of the fleet's work at its speed; without workers, that of one worker."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger = ledger
        self._settings = settings

    def limit(self) -> int:
        """Return the limit in pages. Raises TransientError."""
        if self._settings.backlog_pages is not None:
            return self._settings.backlog_pages
        assumed = self._settings.pages_per_second
        fleet = speed(self._ledger.workers(), assumed=assumed) or assumed
        return max(_LOWEST_LIMIT, math.ceil(fleet * self._settings.backlog_seconds))


def count_waiting(ledger: Ledger | None, marker: Marker, *, over: bool = False) -> None:
    """Add a waiting document's pages to the count in Redis, or subtract them when it is `over`. Ignores a Redis that is away."""
    if ledger is not None:
        with suppress(TransientError):
            ledger.wait(marker.queue, marker.collection, -marker.pages if over else marker.pages)


class Recount:
    """Counts the pages that wait in the store, in a thread of its own, when Redis has no count or an old one."""

    def __init__(self, store: ObjectStore, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._counted = time.monotonic()
        self._thread: threading.Thread | None = None

    def begin_if_due(self) -> None:
        """Start a count if one is due. Raises TransientError."""
        if self._thread is not None and self._thread.is_alive():
            return
        if self._ledger.waiting() is None or time.monotonic() - self._counted > _RECOUNT_SECONDS:
            self._thread = threading.Thread(target=self._run, name="recount", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            waiting = count(self._store)
            self._ledger.counted(waiting)
        except OcrfleetError as error:
            log.warning("backlog.recount_failed", error=str(error))
            return
        self._counted = time.monotonic()
        log.info("backlog.recounted", pages=sum(waiting.values()))


def count(store: ObjectStore) -> dict[tuple[str, str], int]:
    """Return the pages that wait in a store, by priority and collection. Raises TransientError.

    Reads one object for each waiting document: some minutes for a million of them.
    """
    pages: Counter[tuple[str, str]] = Counter()

    def add(key: str) -> None:
        with suppress(NotFoundError, DamagedRecordError):  # dispatched meanwhile; the dispatcher logs a damaged one
            marker = Marker.from_bytes(store.get(key))
            pages[marker.queue, marker.collection] += marker.pages

    with ThreadPoolExecutor(_THREADS) as pool:
        for queue in Priority:
            for collection in store.folders(keys.waiting_in(queue)):
                markers = iter(store.list(keys.waiting_in(queue, collection)))
                while batch := list(islice(markers, _BATCH)):
                    list(pool.map(add, batch))
    return dict(pages)
