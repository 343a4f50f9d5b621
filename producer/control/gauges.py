"""The leader's gauges: a snapshot of the fleet every few seconds, in a thread of its own, while this process leads."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.errors import OcrfleetError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.documents import DocumentStatus
from ocrfleet.s3.location import SCHEME
from producer.monitoring.fleet_snapshot import FleetMonitor, gauges_of
from producer.state.backlog import Recount

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.metrics.definitions import ObservedGauge
    from ocrfleet.metrics.exposition import ObservedGauges, Values
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.state.active import ActiveDocument

log = structlog.get_logger(__name__)

#: Seconds between two snapshots.
_EVERY = 5.0


class GaugeUpdater:
    """Keeps the leader's gauges up to date. Its own thread, since listing the store may take long."""

    def __init__(self, settings: Settings, store: ObjectStore, ledger: Ledger, gauges: ObservedGauges) -> None:
        self._store = settings.store
        self._monitor = FleetMonitor(settings, store, ledger)
        self._recount = Recount(store, ledger)
        self._leases = ExpiredLeases(MessageInspector(ledger.redis), settings.lease_seconds)
        self._gauges = gauges
        self._active: Sequence[ActiveDocument] = ()
        self._has_active = threading.Event()
        self._stopped = threading.Event()

    def set_active(self, active: Sequence[ActiveDocument]) -> None:
        """Set the documents that are active: the next snapshot counts their pages."""
        self._active = active
        self._has_active.set()

    @contextmanager
    def running(self) -> Iterator[GaugeUpdater]:
        """Update the gauges until the block ends."""
        for status in DocumentStatus:
            metrics.DOCUMENTS_ENDED.labels(status.value)
        for kind in metrics.REPUBLISHED_KINDS:
            metrics.REPUBLISHED.labels(kind)
        self._gauges.replace({metrics.LEADER: {(): 1}})
        thread = threading.Thread(target=self._run, name="gauges", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            self._has_active.set()
            # The thread may be in a listing of an unreachable store: it updates nothing after that.
            thread.join(_EVERY)
            self._gauges.replace({metrics.LEADER: {(): 0}})

    def _run(self) -> None:
        self._has_active.wait()  # known once the leader has adopted the active documents
        while not self._stopped.is_set():
            seen: dict[ObservedGauge, Values] = {metrics.LEADER: {(): 1.0}}
            try:
                self._recount.begin_if_due()
                metrics.LEASES_EXPIRED.inc(self._leases.count(time.time()))
                seen |= gauges_of(self._monitor.snapshot(self._active)) | disk_of(self._store)
            except OcrfleetError as error:
                log.warning("gauges.store_or_redis_away", error=str(error))
            except Exception:  # the next update may succeed
                log.exception("gauges.update_failed")
            if not self._stopped.is_set():
                self._gauges.replace(seen)
            self._stopped.wait(_EVERY)


def disk_of(store: str) -> dict[ObservedGauge, Values]:
    """Return the gauges of the file system of a store; none for one in S3, or a folder that can't be asked."""
    if store.startswith(SCHEME):
        return {}
    try:
        usage = shutil.disk_usage(store)
    except OSError as error:
        log.warning("gauges.disk_unknown", store=store, error=str(error))
        return {}
    return {metrics.STORE_FREE: {(): float(usage.free)}, metrics.STORE_SIZE: {(): float(usage.total)}}


class ExpiredLeases:
    """Counts the messages whose lease expired. kombu delivers those to another worker, without any event.

    A lease that was not renewed for half of its time is overdue. If an overdue lease is gone or renewed at the next count,
    and its time was over by then, it has expired: workers renew ten times as often.
    """

    def __init__(self, inspector: MessageInspector, lease_seconds: float) -> None:
        self._inspector = inspector
        self._lease = lease_seconds
        self._overdue: dict[str, float] = {}

    def count(self, now: float) -> int:
        """Return how many have expired since the last count; `now` is a Unix time. Raises TransientError."""
        renewed = self._inspector.leased_since(list(self._overdue))
        expired = sum(
            1
            for tag, since in self._overdue.items()
            if renewed[tag] != since and (renewed[tag] or now) >= since + self._lease
        )
        self._overdue = self._inspector.leases(begun_before=now - self._lease / 2)
        return expired
