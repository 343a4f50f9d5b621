"""What `ocrfleet top` knows: the outlook of a fleet from its Redis and its store, and how fast its workers are of late."""

from __future__ import annotations

import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.records.documents import Manifest, Marker
from producer.monitoring.fleet_snapshot import Looker
from producer.state.active import Active
from producer.state.leader import is_led

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.records.workers import WorkerState
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.monitoring.fleet_snapshot import Outlook

#: Active documents that are looked at: more are never active than the backlog has pages.
_MOST = 2000
_THREADS = 16
#: Seconds between two listings of what waits, and over which speeds are measured: several heartbeats.
_STOCKTAKING, _WINDOW = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class Rate:
    """What a worker did of late, in a second; starved is a share of the time."""

    pages: float = 0.0
    tokens: float = 0.0
    starved: float = 0.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What is shown at a time."""

    outlook: Outlook
    #: by worker; one that has been seen once only is measured since it was ready
    rates: Mapping[str, Rate]
    #: active documents by profile, where no worker serves that in their revision
    unserved: Mapping[str, int]
    failed: int
    #: whether somebody leads
    led: bool
    at: float

    @property
    def rate(self) -> Rate:
        """That of all workers; starved is their mean."""
        rates = self.rates.values()
        return Rate(
            pages=sum(rate.pages for rate in rates),
            tokens=sum(rate.tokens for rate in rates),
            starved=sum(rate.starved for rate in rates) / len(rates) if rates else 0.0,
        )


class Top:
    """Looks at a fleet from beside it: nothing but its Redis and its store is needed."""

    def __init__(self, settings: Settings, store: ObjectStore, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._looker = Looker(settings, store, ledger, stocktaking=_STOCKTAKING)
        self._known: dict[str, Active] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="top")
        self._seen: deque[tuple[float, Mapping[str, WorkerState]]] = deque()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def look(self) -> Sight:
        """Look once. Raises TransientError when Redis or the store is away."""
        active = self._active()
        outlook = self._looker.look(active)
        served = {(state.profile, state.profile_digest) for state in outlook.workers}
        markers = [one.marker for one in active]
        return Sight(
            outlook=outlook,
            rates=self._rates(outlook.workers),
            unserved=Counter(
                marker.profile for marker in markers if (marker.profile, marker.profile_digest) not in served
            ),
            failed=sum(one.progress.failed for one in active if one.progress is not None),
            led=is_led(self._ledger.redis),
            at=time.time(),
        )

    def _active(self) -> list[Active]:
        """Return the active documents. What doesn't change of them is read once."""
        documents = [key.removeprefix(keys.ACTIVE) for key in islice(self._store.list(keys.ACTIVE), _MOST)]
        unknown = [document for document in documents if document not in self._known]
        read = dict(zip(unknown, self._pool.map(self._read, unknown), strict=True))
        known = {document: self._known.get(document) or read.get(document) for document in documents}
        self._known = {document: active for document, active in known.items() if active is not None}
        found = list(self._known.values())
        for active, progress in zip(
            found, self._ledger.progress([(one.document, one.generation) for one in found]), strict=True
        ):
            active.progress = progress
            if progress is None:  # it has ended, and may be another generation's when it is seen again
                del self._known[active.document]
        return found

    def _read(self, document: str) -> Active | None:
        with suppress(NotFoundError, DamagedRecordError):  # it has ended meanwhile
            marker = Marker.from_bytes(self._store.get(keys.active(document)))
            return Active(Manifest.from_bytes(self._store.get(keys.manifest(document))), marker)
        return None

    def _rates(self, workers: Sequence[WorkerState]) -> dict[str, Rate]:
        now = time.monotonic()
        self._seen.append((now, {state.worker: state for state in workers}))
        while self._seen[0][0] < now - _WINDOW:
            self._seen.popleft()
        return {state.worker: self._rate(state) for state in workers}

    def _rate(self, now: WorkerState) -> Rate:
        before = next((seen[now.worker] for _, seen in self._seen if now.worker in seen), None)
        if before is None or before.seconds >= now.seconds:
            before = now.model_copy(update={"seconds": 0.0, "pages": 0, "tokens": 0, "starved_seconds": 0.0})
        passed = now.seconds - before.seconds
        if not passed:
            return Rate()
        return Rate(
            pages=(now.pages - before.pages) / passed,
            tokens=(now.tokens - before.tokens) / passed,
            starved=(now.starved_seconds - before.starved_seconds) / passed,
        )
