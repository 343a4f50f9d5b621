"""The pipeline of a worker: an engine and an event loop for its pages, from start to stop.

All pages of a worker are coroutines on one event loop in a thread of its own. A Celery task is another thread, which hands a
job over to the loop and waits.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from ocrfleet.errors import FatalError
from worker.pipeline.canary import self_test
from worker.pipeline.jobs import JobRunner

if TYPE_CHECKING:
    from ocrfleet.records.messages import PageJob
    from ocrfleet.records.workers import WorkerState
    from worker.pipeline.context import WorkerContext
    from worker.pipeline.jobs import JobOutcome

log = structlog.get_logger(__name__)

#: Seconds that an engine may take to stop: vLLM gives its processes five, then kills them.
_STOP_DEADLINE = 30.0


class Pipeline:
    """Runs page jobs with one engine. Its methods may be called from any thread."""

    #: made once the engine has started
    jobs: JobRunner

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        #: when the event loop was last asked to respond, and its answer
        self._probe: tuple[float, Future[None] | None] = (0.0, None)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pipeline", daemon=True)

    def start(self) -> None:
        """Load the engine and test it. Raises FatalError when it can't be loaded, or fails its self-test."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    async def _start(self) -> None:
        context = self._context
        await context.engine.start()
        try:
            async with asyncio.timeout(context.settings.page_deadline or context.profile.page_deadline):
                await self_test(context.engine, context.profile)
        except TimeoutError as error:
            raise FatalError("the engine hangs in the self-test page") from error
        # Only now: an engine may learn from its device how many pages it takes.
        self.jobs = JobRunner(context)
        await self.jobs.auditor.start()

    def run(self, job: PageJob, *, redelivered: bool) -> JobOutcome:
        """Work on a job until each of its pages has a record or goes to another profile. Raises as `JobRunner.run`."""
        work = self.jobs.run(job, redelivered=redelivered)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def state(self) -> WorkerState:
        """Return the state of this worker for its heartbeat, and update its metrics."""
        self.jobs.utilisation.update_metrics()
        return self.jobs.utilisation.state()

    def engine_failure(self) -> str | None:
        """Say why the engine can't read any more, where that shows without a page."""
        return self._context.engine.broken

    def waits_for_store(self) -> bool:
        """Say whether a call to the store or to Redis waits for its next try."""
        return self._context.store_retry.waiting > 0

    def responds(self) -> bool:
        """Say whether the event loop has turned within the time of a lease. What blocks it blocks every page of this worker.

        Does not wait: heartbeat and leases go on meanwhile.
        """
        asked, answer = self._probe
        if answer is None or answer.done():
            answer = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
            self._probe = time.monotonic(), answer
            return True
        return time.monotonic() - asked < self._context.settings.lease_seconds

    def drain(self) -> None:
        """Begin no more pages. Those that were begun end as usual, or go back to the queue after `drain_seconds`."""
        health = self._context.health
        if health.draining:
            return
        health.draining = True
        self._context.store_retry.stop_retrying()
        self._loop.call_soon_threadsafe(
            self._loop.call_later, self._context.settings.drain_seconds, self.jobs.give_back_pages
        )

    def stop(self) -> None:
        """Stop the engine, the renderers and the event loop. No job may be running."""
        with suppress(TimeoutError):  # it ends with this process
            asyncio.run_coroutine_threadsafe(self._context.engine.stop(), self._loop).result(timeout=_STOP_DEADLINE)
            asyncio.run_coroutine_threadsafe(self.jobs.auditor.stop(), self._loop).result(timeout=_STOP_DEADLINE)
        self._context.renderers.close()
        if self._context.words is not None:
            self._context.words.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._context.store_retry.close()
        self._context.source_threads.shutdown()
