"""Leases: a worker renews the leases of its jobs, so that no other worker takes them while a long page is read.

kombu writes the time of a message into `unacked_index` once, at delivery, and delivers the message to another consumer
when that time is older than the visibility timeout. Renewing writes the time again while the job runs.
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
    """Renews the leases of running jobs, and with `state` the heartbeat of the worker, in its own thread.

    The lease of a job is renewed for at most `job_deadline` seconds; then other workers may take the job. A thread can't be
    stopped, so the worker then counts as broken, except while `patient` returns True: it waits for an unreachable store.
    `trouble` returns another reason why the worker is broken, or None. `works` returns whether the event loop runs. `broken` is
    called once with the error.
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
        #: by a unique key: the broker may deliver the same message to this worker again while the job still runs
        self._held: dict[object, tuple[str, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing and remove the heartbeat. Pages still in flight then count as a worker death."""
        self._stop.set()
        self._thread.join()
        if self._state is not None:
            with suppress(TransientError):  # the heartbeat expires
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
        """Renew once. Raises TransientError.

        The heartbeat expires before the leases: a worker that takes over a job must find no heartbeat of the previous worker.
        """
        if self._state is not None:
            self._ledger.heartbeat(self._state(), self._lease * 0.8)
        now = time.monotonic()
        alive = [tag for tag, since in self._held.copy().values() if now - since < self._deadline]
        if alive:
            self._ledger.renew(alive)

    def _look(self) -> None:
        """Call `broken` if the worker is broken, also while no page is in flight."""
        now = time.monotonic()
        overdue = not self._patient() and any(now - since >= self._deadline for _, since in self._held.copy().values())
        trouble = self._trouble() or (f"a job has not ended within {self._deadline:g} seconds" if overdue else None)
        if trouble is not None and not self._told:
            self._told = True
            # In another thread, because `broken` stops this one.
            threading.Thread(target=self._broken, args=[FatalError(trouble)], daemon=True).start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._works():
                # A blocked event loop does not recover: only an exit lets other workers take the jobs.
                log.error("leases.worker_blocked", consequence="the process exits")
                os._exit(EXIT_BROKEN)
            try:
                self._look()
                self.beat()
            except TransientError as error:
                log.warning("leases.not_renewed", error=str(error))
            except Exception:  # without a renewed heartbeat the worker would count as dead
                log.exception("leases.renewal_raised")
            self._stop.wait(self._lease / 10)
