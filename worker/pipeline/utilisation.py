"""How well the engine is fed: pages, tokens, and the seconds in which it had room while pages waited to be made ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ocrfleet.metrics import definitions as metrics
from ocrfleet.profiles.profile import Profile
from ocrfleet.records.workers import WorkerState


class Feed:
    """Counts for one worker. All calls come from one event loop, but for `state`.

    The engine starves while fewer pages are with it than it takes and others are being made ready: fetched, rendered,
    judged, or waiting for that. What waits on the queue is not seen, but a worker takes jobs as long as it has room.
    """

    def __init__(
        self, *, worker: str, profile: Profile, slots: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._worker = worker
        self._profile = profile
        self._slots = slots
        self._clock = clock
        self._made_ready = 0
        self._with_engine = 0
        self._seen = self._begun = clock()
        self._busy = self._starved = 0.0
        self._pages = self._tokens = 0
        #: pages that are ready and wait for the engine to have room
        self._waiting = 0
        #: busy and starved seconds that the metrics know of, and pages that run and wait
        self._exposed = 0.0, 0.0
        self._exposed_requests = -1, -1
        self._requests = [metrics.ENGINE_REQUESTS.labels(state, profile.name) for state in ("running", "waiting")]
        metrics.ENGINE_SLOTS.labels(profile.name).set(slots)
        self._expose_requests()

    @contextmanager
    def making_ready(self) -> Iterator[None]:
        """Have a page on its way to the engine while the block runs."""
        self._turn()
        self._made_ready += 1
        try:
            yield
        finally:
            self._turn()
            self._made_ready -= 1

    @contextmanager
    def with_engine(self) -> Iterator[None]:
        """Have a page with the engine while the block runs."""
        self._turn()
        self._with_engine += 1
        self._expose_requests()
        try:
            yield
        finally:
            self._turn()
            self._with_engine -= 1
            self._expose_requests()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Have a page wait for the engine to have room while the block runs."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def wrote(self, tokens: int | None) -> None:
        """Count what the engine has written of a page in one attempt."""
        self._tokens += tokens or 0

    def read(self) -> None:
        """Count a page that the engine has read, in however many attempts."""
        self._pages += 1

    def state(self) -> WorkerState:
        """Return what has been counted so far. May be called from any thread: it changes nothing."""
        now, busy, starved = self._counted()
        return WorkerState(
            worker=self._worker,
            profile=self._profile.name,
            profile_digest=self._profile.digest,
            seconds=round(now - self._begun, 3),
            pages=self._pages,
            tokens=self._tokens,
            busy_seconds=round(busy, 3),
            starved_seconds=round(starved, 3),
        )

    def expose(self) -> None:
        """Bring the metrics up to date with what no page's coming and going tells of. By one thread, now and then."""
        self._expose_requests()
        _, busy, starved = self._counted()
        busy_before, starved_before = self._exposed
        # Counted beside the event loop, they may be a moment behind the last look.
        self._exposed = max(busy, busy_before), max(starved, starved_before)
        metrics.ENGINE_BUSY.labels(self._profile.name).inc(self._exposed[0] - busy_before)
        metrics.ENGINE_STARVED.labels(self._profile.name).inc(self._exposed[1] - starved_before)

    def _expose_requests(self) -> None:
        running = min(self._with_engine, self._slots)
        requests = running, self._with_engine - running + self._waiting
        for gauge, now, before in zip(self._requests, requests, self._exposed_requests, strict=True):
            if now != before:  # to compare is cheaper than to write into a file
                gauge.set(now)
        self._exposed_requests = requests

    def _turn(self) -> None:
        """Note what was counted until now: something is about to change."""
        self._seen, self._busy, self._starved = self._counted()

    def _counted(self) -> tuple[float, float, float]:
        """Return the time, and the seconds that were busy and starved until then."""
        now = self._clock()
        passed = now - self._seen
        busy = self._busy + (passed if self._made_ready or self._with_engine else 0.0)
        starving = self._made_ready and self._with_engine < self._slots
        return now, busy, self._starved + (passed if starving else 0.0)
