"""The leader's gauges: the fleet is looked at every few seconds, beside the duties, and exposed until somebody else leads."""

from __future__ import annotations

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
from producer.monitoring.fleet_snapshot import Looker, observed
from producer.state.backlog import Recount

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.metrics.definitions import Observed
    from ocrfleet.metrics.exposition import Snapshot, Values
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.state.active import Active

log = structlog.get_logger(__name__)

#: Seconds between two looks.
_EVERY = 5.0


class Observer:
    """Looks at the fleet in a thread of its own: a listing that takes long holds up no duty."""

    def __init__(self, settings: Settings, store: ObjectStore, ledger: Ledger, snapshot: Snapshot) -> None:
        self._looker = Looker(settings, store, ledger)
        self._recount = Recount(store, ledger)
        self._leases = ExpiredLeases(MessageInspector(ledger.redis), settings.lease_seconds)
        self._snapshot = snapshot
        self._active: Sequence[Active] = ()
        self._told = threading.Event()
        self._over = threading.Event()

    def note(self, active: Sequence[Active]) -> None:
        """Take the documents that are active."""
        self._active = active
        self._told.set()

    @contextmanager
    def running(self) -> Iterator[Observer]:
        """Look until the block ends."""
        for status in DocumentStatus:
            metrics.DOCUMENTS_ENDED.labels(status.value)
        for kind in metrics.REPUBLISHED_KINDS:
            metrics.REPUBLISHED.labels(kind)
        self._snapshot.replace({metrics.LEADER: {(): 1}})
        thread = threading.Thread(target=self._run, name="observer", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._told.set()
            # It may be in a listing of a store that is away: it says nothing when it comes back.
            thread.join(_EVERY)
            self._snapshot.replace({metrics.LEADER: {(): 0}})

    def _run(self) -> None:
        self._told.wait()  # what is active is known once the leader has adopted it
        while not self._over.is_set():
            seen: dict[Observed, Values] = {metrics.LEADER: {(): 1.0}}
            try:
                self._recount.begin_if_due()
                metrics.LEASES_EXPIRED.inc(self._leases.look(time.time()))
                seen |= observed(self._looker.look(self._active))
            except OcrfleetError as error:
                log.warning("the fleet can't be looked at now", error=str(error))
            except Exception:  # a look that fails must not end the looks
                log.exception("look failed")
            if not self._over.is_set():
                self._snapshot.replace(seen)
            self._over.wait(_EVERY)


class ExpiredLeases:
    """Counts the messages whose lease ran out: kombu gives them to somebody else, and says nothing.

    One that nobody has renewed for half its time is remembered. If it is gone at the next look, or renewed, at a time at which
    it had run out, it has expired: whoever renews leases does so ten times as often.
    """

    def __init__(self, published: MessageInspector, lease_seconds: float) -> None:
        self._published = published
        self._lease = lease_seconds
        self._overdue: dict[str, float] = {}

    def look(self, now: float) -> int:
        """Return how many have expired since the last look. Raises TransientError."""
        renewed = self._published.leased_since(list(self._overdue))
        expired = sum(
            1
            for tag, since in self._overdue.items()
            if renewed[tag] != since and (renewed[tag] or now) >= since + self._lease
        )
        self._overdue = self._published.leases(begun_before=now - self._lease / 2)
        return expired
