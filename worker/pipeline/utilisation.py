"""Utilisation of the engine: pages, tokens, busy seconds, and seconds in which it was idle while pages waited."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ocrfleet.metrics import definitions as metrics
from ocrfleet.profiles.profile import Profile
from ocrfleet.records.workers import WorkerState
from ocrfleet.sandbox.confinement import support


class Utilisation:
    """Counts for one worker. All calls come from one event loop, but for `state` and `update_metrics`.

    The engine counts as idle while it has fewer pages than it takes at once and other pages are being prepared: fetched,
    rendered, or waiting for that. Pages on the queue don't count: a worker takes jobs as long as it has room.
    """

    def __init__(
        self, *, worker: str, profile: Profile, slots: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._worker = worker
        self._profile = profile
        #: pages that the engine takes at once
        self._slots = slots
        self._clock = clock
        #: pages now: being prepared, with the engine, and prepared but waiting for the engine to have room
        self._preparing = self._recognising = self._waiting = 0
        self._started = self._counted_at = clock()
        self._busy = self._idle = 0.0
        self._pages = self._tokens = 0
        #: values of the metrics: busy and idle seconds; running and waiting pages
        self._shown_seconds = 0.0, 0.0
        self._shown_requests = -1, -1
        self._requests = [metrics.ENGINE_REQUESTS.labels(state, profile.name) for state in ("running", "waiting")]
        metrics.ENGINE_SLOTS.labels(profile.name).set(slots)
        self._update_requests()

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Count a page as on its way to the engine while the block runs."""
        self._count_time()
        self._preparing += 1
        try:
            yield
        finally:
            self._count_time()
            self._preparing -= 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a page as waiting for the engine to have room while the block runs."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @contextmanager
    def recognising(self) -> Iterator[None]:
        """Count a page as with the engine while the block runs."""
        self._count_time()
        self._recognising += 1
        self._update_requests()
        try:
            yield
        finally:
            self._count_time()
            self._recognising -= 1
            self._update_requests()

    def add_tokens(self, tokens: int | None) -> None:
        """Count the tokens that the engine wrote in one attempt."""
        self._tokens += tokens or 0

    def add_page(self) -> None:
        """Count a page that the engine has read, in any number of attempts."""
        self._pages += 1

    def state(self) -> WorkerState:
        """Return the counts so far. May be called from any thread: it changes nothing."""
        now, busy, idle = self._seconds_now()
        return WorkerState(
            worker=self._worker,
            profile=self._profile.name,
            profile_digest=self._profile.digest,
            seconds=round(now - self._started, 3),
            pages=self._pages,
            tokens=self._tokens,
            busy_seconds=round(busy, 3),
            starved_seconds=round(idle, 3),
            sandbox_missing=support().missing or None,
        )

    def update_metrics(self) -> None:
        """Bring the metrics up to date between two events. To be called by one thread, now and then."""
        self._update_requests()
        _, busy, idle = self._seconds_now()
        busy_before, idle_before = self._shown_seconds
        # This thread may read values that are a moment older than those it read last: a counter must not go back.
        self._shown_seconds = max(busy, busy_before), max(idle, idle_before)
        metrics.ENGINE_BUSY.labels(self._profile.name).inc(self._shown_seconds[0] - busy_before)
        metrics.ENGINE_STARVED.labels(self._profile.name).inc(self._shown_seconds[1] - idle_before)

    def _update_requests(self) -> None:
        running = min(self._recognising, self._slots)
        requests = running, self._recognising - running + self._waiting
        for gauge, now, before in zip(self._requests, requests, self._shown_requests, strict=True):
            if now != before:  # comparing is cheaper than writing to the metrics file
                gauge.set(now)
        self._shown_requests = requests

    def _count_time(self) -> None:
        """Count the seconds since the last call. To be called before the number of pages changes."""
        self._counted_at, self._busy, self._idle = self._seconds_now()

    def _seconds_now(self) -> tuple[float, float, float]:
        """Return the time, and the busy and idle seconds until then."""
        now = self._clock()
        passed = now - self._counted_at
        busy = self._busy + (passed if self._preparing or self._recognising else 0.0)
        idle = self._preparing and self._recognising < self._slots
        return now, busy, self._idle + (passed if idle else 0.0)
