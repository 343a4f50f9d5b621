"""Leases: a worker that lives says so, so that nobody else takes its jobs, however long a page takes.

kombu writes a message's time into `unacked_index` once, at delivery, and hands the message to somebody else when that
time is older than the visibility timeout. Renewing writes the time again while the job is worked on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import structlog

from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import EXIT_BROKEN, FatalError, TransientError
from ocrfleet.records.workers import WorkerState

log = structlog.get_logger(__name__)


class Leases:
    """Renews the leases of the jobs in hand, and the worker's heartbeat if it has a `state`, in a thread of its own.

    A job is renewed for `job_deadline` seconds at most: one that hangs for ever must come to others in the end, and a
    thread that can't be ended makes its worker a broken one, unless the worker is `patient` with a store that is away.
    `trouble` says what else breaks it; `broken` is told, once.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        state: Callable[[], WorkerState] | None,
        lease_seconds: float,
        job_deadline: float,
        works: Callable[[], bool] = lambda: True,
        trouble: Callable[[], str | None] = lambda: None,
        patient: Callable[[], bool] = lambda: False,
        broken: Callable[[FatalError], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._state = state
        self._lease = lease_seconds
        self._deadline = job_deadline
        self._works = works
        self._trouble = trouble
        self._patient = patient
        self._broken = broken
        self._told = False
        #: by a key of its own: the same message may come back to this worker while it is still at it
        self._held: dict[object, tuple[str, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the renewals and say that the worker is gone: what it still holds counts as having died with it."""
        self._stop.set()
        self._thread.join()
        if self._state is not None:
            with suppress(TransientError):  # it expires by itself
                self._ledger.leave(self._state().worker)

    @contextmanager
    def held(self, tag: str) -> Iterator[None]:
        """Renew the lease of the message with this delivery tag until the block ends."""
        holding = object()
        self._held[holding] = (tag, time.monotonic())
        try:
            yield
        finally:
            del self._held[holding]

    def beat(self) -> None:
        """Renew once.

        The heartbeat ends before the leases do: whoever takes over a job must find its former worker dead.
        """
        if self._state is not None:
            self._ledger.heartbeat(self._state(), self._lease * 0.8)
        now = time.monotonic()
        alive = [tag for tag, since in self._held.copy().values() if now - since < self._deadline]
        if alive:
            self._ledger.renew(alive)

    def _look(self) -> None:
        """Tell of what makes the worker useless, also while no page meets it."""
        now = time.monotonic()
        overdue = not self._patient() and any(now - since >= self._deadline for _, since in self._held.copy().values())
        trouble = self._trouble() or (f"a job has not ended within {self._deadline:g} seconds" if overdue else None)
        if trouble is not None and not self._told:
            self._told = True
            # In a thread of its own, as it will end this one.
            threading.Thread(target=self._broken, args=[FatalError(trouble)], daemon=True).start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._works():
                # Something blocks the event loop, for ever as it seems: only its end makes others take its jobs.
                log.error("leases.worker_blocked", consequence="the process exits")
                os._exit(EXIT_BROKEN)
            try:
                self._look()
                self.beat()
            except TransientError as error:
                log.warning("leases.not_renewed", error=str(error))
            except Exception:  # a worker whose leases nobody renews counts as dead
                log.exception("leases.renewal_raised")
            self._stop.wait(self._lease / 10)
