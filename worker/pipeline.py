"""The way of a page through a worker: fetch, render, judge, recognise, store, mark.

All pages of a worker are coroutines on one event loop in a thread of its own; a job is a thread that hands over its
pages and waits. Pages are admitted by number in flight, not by jobs, so one slow page of a job leaves no slot idle.
"""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from ocrfleet import keys
from ocrfleet.errors import FatalError, OcrfleetError, PageFaultError, PermanentError, Reason, TransientError
from ocrfleet.jobs import Manifest, PageJob, PageResult, PageStatus, Record
from ocrfleet.ledger import Ledger, Mark
from ocrfleet.results import record_pages, stored_pages
from ocrfleet.sources import opened
from worker import canary
from worker.judge import is_blank

if TYPE_CHECKING:
    from ocrfleet.profiles import Profile
    from ocrfleet.settings import Settings
    from ocrfleet.storage import ObjectStore
    from worker.engines.base import Engine, PageImage, Recognition
    from worker.render import RenderPool

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: Seconds between two tries when the store or Redis is away: doubled each time, up to the second number.
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0


class DrainingError(OcrfleetError):
    """The worker is leaving: the page was not begun and goes to somebody else."""


class Attempt(Record):
    """One try at a page, for the run record."""

    page: int
    outcome: str
    render_seconds: float | None = None
    recognise_seconds: float | None = None


class RunRecord(Record):
    """What it took to work on a job: differs from run to run, and is no part of any output."""

    schema_version: int = 1
    job: PageJob
    worker: str
    finished: float
    attempts: tuple[Attempt, ...]


@dataclass
class _Try:
    """An attempt while it is made."""

    page: int
    seconds: dict[str, float] = field(default_factory=dict)

    def done(self, outcome: str) -> Attempt:
        return Attempt(page=self.page, outcome=outcome, **self.seconds)


class Pipeline:
    """One engine and its renderers, kept full. Methods without `async` may be called from any thread."""

    def __init__(
        self,
        *,
        settings: Settings,
        profile: Profile,
        engine: Engine,
        renderers: RenderPool,
        store: ObjectStore,
        ledger: Ledger,
        worker: str,
    ) -> None:
        self._settings = settings
        self._profile = profile
        self._engine = engine
        self._renderers = renderers
        self._store = store
        self._ledger = ledger
        self._worker = worker
        self._passwords = settings.passwords()
        self._page_deadline = settings.page_deadline or profile.page_deadline
        # As many pages as the engine takes at once, and for each renderer one that is being made ready.
        self._capacity = engine.concurrency + settings.renderers
        self._slots = asyncio.Semaphore(self._capacity)
        self._gate = asyncio.Lock()
        self._engine_slots = asyncio.Semaphore(engine.concurrency)
        #: a page hangs in an engine that can't be interrupted: no other page may be given to it
        self._stuck = False
        self._draining = False
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="pipeline-io")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pipeline", daemon=True)
        self._manifest = functools.lru_cache(maxsize=64)(self._read_manifest)

    @property
    def jobs_at_once(self) -> int:
        """How many jobs fill the slots even when each has a single page left."""
        return self._capacity

    @property
    def engine_version(self) -> str:
        return self._engine.version

    def start(self) -> None:
        """Load the engine. Raises FatalError when it can't be loaded."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start_engine(), self._loop).result()

    async def _start_engine(self) -> None:
        await self._engine.start()
        try:
            async with asyncio.timeout(self._page_deadline):
                await canary.sing(self._engine, self._profile)
        except TimeoutError as error:
            raise FatalError("the engine hangs in the canary page") from error

    def responds(self) -> bool:
        """Say whether the event loop turns within a lease's time; what blocks it blocks every page of this worker."""
        try:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(timeout=self._settings.lease_seconds)
        except TimeoutError:
            return False
        return True

    def run(self, job: PageJob, *, redelivered: bool) -> bool:
        """Work on a job until each of its pages has a terminal record; return True when its document may be assembled.

        Raises TransientError or DrainingError when it must be given back, FatalError when this worker is broken.
        """
        return asyncio.run_coroutine_threadsafe(self._job(job, redelivered=redelivered), self._loop).result()

    def drain(self) -> None:
        """Begin no more pages; those that were begun end as usual."""
        self._draining = True

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._engine.stop(), self._loop).result(timeout=10)
        self._renderers.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._threads.shutdown()

    async def _job(self, job: PageJob, *, redelivered: bool) -> bool:
        with structlog.contextvars.bound_contextvars(document=job.document, generation=job.generation):
            manifest = await self._patiently(self._manifest, job.document, job.generation)
            if manifest.profile_digest != self._profile.digest:
                raise OcrfleetError(
                    f"document {job.document} was registered for another revision of profile {manifest.profile}: "
                    "producers and workers must have the same version"
                )
            terminal = await self._patiently(self._terminal, job, manifest, redelivered)
            selected = {page for first, last in manifest.selection for page in range(first, last + 1)}
            pages = [page for page in range(job.first, job.last + 1) if page in selected and page not in terminal]
            attempts: list[Attempt] = []
            ends = await asyncio.gather(
                *(self._page(job, manifest, page, attempts) for page in pages), return_exceptions=True
            )
            await self._write_run_record(job, attempts)
            _raise_worst(ends)
            # A job with nothing left to do may be the repetition of one whose worker died before it asked for assembly.
            mark = await self._patiently(self._ledger.mark, job.document, job.generation, ())
            return mark is Mark.LAST

    def _read_manifest(self, document: str, _generation: int) -> Manifest:
        """Read a manifest, once for each generation: where its source lies may have changed in between."""
        return Manifest.from_bytes(self._store.get(keys.manifest(document)))

    def _terminal(self, job: PageJob, manifest: Manifest, redelivered: bool) -> set[int]:  # noqa: FBT001
        """Return the pages that need no work, from the ledger where it is to be trusted, else from the store."""
        known = self._ledger.terminal(job.document, job.generation)
        if known is None:
            pages = stored_pages(self._store, job.document, job.generation)
            self._ledger.seed(job.document, job.generation, total=manifest.total, done=pages.done, failed=pages.failed)
            return pages.terminal
        if redelivered:
            pages = stored_pages(self._store, job.document, job.generation, first=job.first, last=job.last)
            self._ledger.mark(job.document, job.generation, sorted(pages.done))
            self._ledger.mark(job.document, job.generation, sorted(pages.failed), failed=True)
            return known | pages.terminal
        return known

    async def _page(self, job: PageJob, manifest: Manifest, page: int, attempts: list[Attempt]) -> None:
        """Bring one page to its terminal record."""
        with structlog.contextvars.bound_contextvars(page=page):
            result = await self._result(job, manifest, page, attempts)
            await self._patiently(record_pages, self._store, self._ledger, job, manifest, result)
            await self._patiently(self._ledger.release, job.document, job.generation, page)
            if result.status is PageStatus.FAILED:
                log.warning("page failed", reason=result.reason, detail=result.detail)
            else:
                log.debug("page done")
            if self._stuck:
                raise FatalError("the engine hangs in a page and can't be interrupted")

    async def _result(self, job: PageJob, manifest: Manifest, page: int, attempts: list[Attempt]) -> PageResult:  # noqa: C901 - one way out for each kind of error
        """Try a page until it is done or failed; its own faults are counted in the ledger, not in the message."""
        while True:
            faults = await self._patiently(
                functools.partial(self._ledger.inspect, worker=self._worker), job.document, job.generation, page
            )
            if faults.deaths_alone >= self._settings.quarantine_deaths:
                detail = (
                    f"the worker died {faults.deaths_alone} times while it worked on this page alone; "
                    "look at the page, then run again with --retry-failed"
                )
                return self._failed(page, Reason.WORKER_DIED, detail)
            if faults.attempts >= self._settings.page_attempts:
                # A worker died between counting the last fault and storing the failure.
                detail = f"it failed {faults.attempts} times; the run records have its attempts"
                return self._failed(page, Reason(faults.reason or Reason.INTERNAL_ERROR), detail)
            alone = faults.deaths >= self._settings.suspect_deaths or faults.deaths_alone > 0
            async with self._admitted(alone=alone):
                if self._draining:
                    raise DrainingError("the worker is leaving")
                hold = functools.partial(self._ledger.hold, worker=self._worker, alone=alone)
                await self._patiently(hold, job.document, job.generation, page)
                current = _Try(page)
                try:
                    result = await self._attempt(manifest, page, current)
                except PermanentError as error:
                    attempts.append(current.done(error.reason))
                    return self._failed(page, error.reason, error.detail)
                except FatalError:
                    # The page stays in this worker's hand: the ledger will find that the worker died with it.
                    attempts.append(current.done("worker broken"))
                    raise
                except (TransientError, DrainingError):
                    await self._patiently(self._ledger.release, job.document, job.generation, page)
                    raise
                except Exception as error:  # noqa: BLE001 - whatever it is, it harms this page alone
                    fault = _fault_of(error)
                else:
                    attempts.append(current.done("done"))
                    return result
            attempts.append(current.done(fault.reason))
            log.warning("page attempt failed", page=page, reason=fault.reason, detail=fault.detail)
            count = await self._patiently(self._ledger.fault, job.document, job.generation, page, fault.reason)
            if count >= self._settings.page_attempts:
                return self._failed(page, fault.reason, fault.detail)
            await self._patiently(self._ledger.release, job.document, job.generation, page)
            if self._stuck:
                raise FatalError("the engine hangs in a page and can't be interrupted")

    async def _attempt(self, manifest: Manifest, page: int, current: _Try) -> PageResult:
        index, inner = manifest.locate(page)
        source = manifest.sources[index]
        begun = time.perf_counter()
        with ExitStack() as stack:
            # In a thread: a file that was touched is hashed again, which takes its time.
            fd = await self._loop.run_in_executor(self._threads, stack.enter_context, opened(source))
            image = await self._renderers.render(
                source.sha256,
                fd,
                source.kind,
                inner,
                self._profile.render,
                passwords=self._passwords,
                deadline=self._settings.render_deadline,
            )
        current.seconds["render_seconds"] = round(time.perf_counter() - begun, 3)
        size = {
            "width_px": image.width,
            "height_px": image.height,
            "width_pt": round(image.width_pt, 2),
            "height_pt": round(image.height_pt, 2),
        }
        if is_blank(image):
            return self._told(page, PageStatus.DONE, blank=True, **size)
        recognition = await self._recognise(image, current)
        return self._told(
            page,
            PageStatus.DONE,
            text=recognition.text,
            lines=recognition.lines,
            finish_reason=recognition.finish_reason,
            tokens=recognition.tokens,
            **size,
        )

    async def _recognise(self, image: PageImage, current: _Try) -> Recognition:
        """Give a page to the engine once it has room; only then its deadline begins."""
        async with self._engine_slots:
            if self._stuck:
                raise DrainingError("the engine hangs in another page")
            begun = time.perf_counter()
            try:
                async with asyncio.timeout(self._page_deadline):
                    return await self._engine.recognise(image, self._profile)
            except TimeoutError as error:
                self._stuck = not self._engine.interruptible
                detail = f"the engine did not answer within {self._page_deadline:g} seconds"
                raise PageFaultError(Reason.ENGINE_DEADLINE, detail) from error
            finally:
                current.seconds["recognise_seconds"] = round(time.perf_counter() - begun, 3)

    def _told(self, page: int, status: PageStatus, **known: Any) -> PageResult:
        return PageResult(
            page=page,
            status=status,
            profile=self._profile.name,
            engine=self._profile.engine,
            engine_version=self._engine.version,
            model=self._profile.model,
            revision=self._profile.revision,
            **known,
        )

    def _failed(self, page: int, reason: Reason, detail: str) -> PageResult:
        return self._told(page, PageStatus.FAILED, reason=reason, detail=detail)

    @asynccontextmanager
    async def _admitted(self, *, alone: bool) -> AsyncIterator[None]:
        """Wait for a slot, or for all of them; first come, first served, so that one who needs all is not starved."""
        taken = 0
        try:
            async with self._gate:
                for _ in range(self._capacity if alone else 1):
                    await self._slots.acquire()
                    taken += 1
            yield
        finally:
            for _ in range(taken):
                self._slots.release()

    async def _patiently(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function of the store or the ledger in a thread, again and again while they are away."""
        wait = _FIRST_WAIT
        while True:
            try:
                answer = await self._loop.run_in_executor(self._threads, function, *args)
                if wait > _FIRST_WAIT:
                    log.warning("going on")
            except TransientError as error:
                if self._draining:
                    raise
                log.warning("waiting", error=str(error), seconds=round(wait, 1))
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                return answer

    async def _write_run_record(self, job: PageJob, attempts: list[Attempt]) -> None:
        if not attempts:
            return
        record = RunRecord(job=job, worker=self._worker, finished=time.time(), attempts=tuple(attempts))
        key = keys.run_record(job.document, job.generation, job.first, uuid.uuid4().hex[:12])
        await self._patiently(self._store.put, key, record.to_bytes())


def _fault_of(error: Exception) -> PageFaultError:
    """Take an error that nobody foresaw for the page's own fault: it is tried again, then it fails alone."""
    if isinstance(error, PageFaultError):
        return error
    log.error("page raised", exc_info=error)
    return PageFaultError(Reason.INTERNAL_ERROR, f"{type(error).__name__} in ocrfleet; the worker's log has the place")


def _raise_worst(ends: list[BaseException | None]) -> None:
    """Raise what matters most of what the pages of a job ended with: a broken worker before anything else."""
    errors = [end for end in ends if isinstance(end, BaseException)]
    for kind in (FatalError, DrainingError, TransientError, BaseException):
        for error in errors:
            if isinstance(error, kind):
                raise error
