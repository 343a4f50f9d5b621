"""The jobs of a worker: their pages are read, stored and marked; what can't be done here is given back.

All pages of a worker are coroutines on one event loop in a thread of its own; a job is a thread that hands over its
pages and waits. Pages are admitted by number and size, not by jobs, so one slow page of a job leaves no slot idle.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.broker.ledger import Ledger, Mark
from ocrfleet.errors import FatalError, OcrfleetError, TransientError
from ocrfleet.records.documents import Manifest
from ocrfleet.records.messages import PageJob
from ocrfleet.records.pages import PageStatus
from ocrfleet.storage.page_records import record_pages, seed_ledger, stored_pages
from worker import metrics as meters
from worker.pipeline import canary
from worker.pipeline.errors import DrainingError, SupersededError
from worker.pipeline.page import PageReader, Visit
from worker.pipeline.routing import Destination, MovedError
from worker.pipeline.run_record import Attempt, RunRecord
from worker.pipeline.store_retry import StoreRetry

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.workers import WorkerState
    from ocrfleet.settings import Settings
    from ocrfleet.sources.sources import Sources
    from ocrfleet.storage.store import ObjectStore
    from worker.engines.base import Engine
    from worker.rendering.pool import RenderPool

log = structlog.get_logger(__name__)

#: Seconds that an engine may take to end: vLLM gives its processes five, then kills them.
_STOP_DEADLINE = 30.0
#: Threads that wait for the store and for Redis.
_THREADS = 8
#: Threads that open sources: others, so that no page's record waits for downloads.
_FETCHES = 8


@dataclass(frozen=True, slots=True)
class Worked:
    """What is to be done after a job."""

    #: every page of the document has a record: time to assemble it
    assemble: bool
    #: pages that go to other profiles; the job may be acknowledged once they are on those queues
    moved: dict[Destination, list[int]]


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
        sources: Sources,
        ledger: Ledger,
        worker: str,
    ) -> None:
        self._settings = settings
        self._profile = profile
        self._engine = engine
        self._renderers = renderers
        self._store = store
        self._sources = sources
        self._ledger = ledger
        self._worker = worker
        self._patience = StoreRetry(_THREADS)
        self._fetching = StoreRetry(_FETCHES)
        self._jobs = self._pages = self._beside = 0
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        #: document, generation and page of those begun: another copy of their job leaves them alone
        self._in_hand: set[tuple[str, int, int]] = set()
        #: begun pages are given back, too
        self._cut_short = False
        #: when the event loop was last asked to turn, and its answer
        self._probe: tuple[float, Future[None] | None] = (0.0, None)
        #: told when there may be room for another job
        self.on_room: Callable[[], None] = lambda: None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pipeline", daemon=True)
        self._manifest = functools.lru_cache(maxsize=64)(self._read_manifest)

    def start(self) -> None:
        """Load the engine. Raises FatalError when it can't be loaded."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start_engine(), self._loop).result()

    async def _start_engine(self) -> None:
        await self._engine.start()
        deadline = self._settings.page_deadline or self._profile.page_deadline
        try:
            async with asyncio.timeout(deadline):
                await canary.self_test(self._engine, self._profile)
        except TimeoutError as error:
            raise FatalError("the engine hangs in the canary page") from error
        # Only now: an engine may learn from its device how many pages it takes.
        self._reader = PageReader(
            settings=self._settings,
            profile=self._profile,
            engine=self._engine,
            renderers=self._renderers,
            store=self._store,
            sources=self._sources,
            ledger=self._ledger,
            patience=self._patience,
            fetching=self._fetching,
            worker=self._worker,
        )

    @property
    def engine_version(self) -> str:
        return self._engine.version

    @property
    def jobs_at_once(self) -> int:
        """How many jobs fill the slots even when each has a single page left."""
        return self._reader.capacity

    @property
    def jobs_in_hand(self) -> int:
        """How many messages are being worked on, assemblies among them."""
        return self._jobs + self._beside

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Have a job in hand that has no pages, as an assembly, while the block runs."""
        with self._lock:
            self._beside += 1
        try:
            yield
        finally:
            with self._lock:
                self._beside -= 1
            self.on_room()

    def room(self, *, jobs_to_come: int) -> bool:
        """Say whether the worker should take another job, when so many are on their way to `run`."""
        return (
            not self._reader.health.leaving
            and self._pages + jobs_to_come * self._profile.pages_per_job < self._reader.capacity
        )

    def state(self) -> WorkerState:
        """Return what the worker says of itself."""
        self._reader.feed.expose()
        return self._reader.feed.state()

    def trouble(self) -> str | None:
        """Say why the worker can't read any more, where that shows without a page."""
        return self._engine.broken

    def patient(self) -> bool:
        """Say whether something waits for the store or for Redis, for as long as it takes."""
        return self._patience.waiting > 0

    def responds(self) -> bool:
        """Say whether the event loop has turned within a lease's time; what blocks it blocks every page of this worker.

        Asked again and again, it does not wait: heartbeat and leases go on meanwhile.
        """
        asked, answer = self._probe
        if answer is None or answer.done():
            answer = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
            self._probe = time.monotonic(), answer
            return True
        return time.monotonic() - asked < self._settings.lease_seconds

    def run(self, job: PageJob, *, redelivered: bool) -> Worked:
        """Work on a job until each of its pages has a terminal record or goes to another profile.

        Raises TransientError or DrainingError when it must be given back, FatalError when this worker is broken.
        """
        return asyncio.run_coroutine_threadsafe(self._job(job, redelivered=redelivered), self._loop).result()

    def drain(self) -> None:
        """Begin no more pages; those that were begun end as usual, or are given back after `drain_seconds`."""
        if self._reader.health.draining:
            return
        self._reader.health.draining = True
        self._patience.end()
        self._loop.call_soon_threadsafe(self._loop.call_later, self._settings.drain_seconds, self._give_back)

    def _give_back(self) -> None:
        if self._tasks:
            log.warning("grace time over: begun pages are given back", pages=len(self._tasks))
        self._cut_short = True
        for task in self._tasks:
            task.cancel()

    def stop(self) -> None:
        with suppress(TimeoutError):  # it ends with this process
            asyncio.run_coroutine_threadsafe(self._engine.stop(), self._loop).result(timeout=_STOP_DEADLINE)
        self._renderers.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._patience.close()
        self._fetching.close()

    async def _job(self, job: PageJob, *, redelivered: bool) -> Worked:
        self._jobs += 1
        try:
            with structlog.contextvars.bound_contextvars(document=job.document, generation=job.generation):
                return await self._work_on(job, redelivered=redelivered)
        finally:
            self._jobs -= 1
            self.on_room()

    async def _work_on(self, job: PageJob, *, redelivered: bool) -> Worked:
        at_most = job.last - job.first + 1
        self._pages += at_most  # until it is known how many are left to do
        claimed: list[int] = []
        begun: list[Visit] = []
        try:
            manifest = await self._patience.call(self._manifest, job.document, job.generation)
            claimed = self._claim(job, manifest)
            terminal = await self._patience.call(self._terminal, job, manifest, redelivered)
            pages = [page for page in claimed if page not in terminal]
            if pages:
                self._check_profile(job, manifest)
            inspect = functools.partial(self._ledger.inspect_all, worker=self._worker)
            faults = await self._patience.call(inspect, job.document, job.generation, pages)
            attempts: list[Attempt] = []
            begun = [Visit(job, manifest, page, faults[page], attempts) for page in pages]
            tasks = [self._begin(visit) for visit in begun]
        finally:
            self._pages -= at_most
            left = set(claimed) - {visit.page for visit in begun}
            self._in_hand -= {(job.document, job.generation, page) for page in left}
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await self._write_run_record(job, attempts)
        moved: dict[Destination, list[int]] = {}
        for page, end in zip(pages, ends, strict=True):
            if isinstance(end, MovedError):
                moved.setdefault(end.to, []).append(page)
        _raise_worst([end for end in ends if not isinstance(end, MovedError | SupersededError)])
        # A job with nothing left to do may be the repetition of one whose worker died before it asked for assembly.
        mark = await self._patience.call(self._ledger.mark, job.document, job.generation, ())
        return Worked(mark is Mark.LAST, moved)

    def _claim(self, job: PageJob, manifest: Manifest) -> list[int]:
        """Take a job's pages in hand, but for those that are, and return them.

        A job may be published again while the first copy is on its way, or be delivered to us twice. What becomes of a page
        that is in hand, becomes of it by the message that it came with. Before the ledger is asked what is terminal: a page
        that ends meanwhile is marked there before it is in nobody's hand.
        """
        free = [page for page in _selected(manifest, job) if (job.document, job.generation, page) not in self._in_hand]
        self._in_hand |= {(job.document, job.generation, page) for page in free}
        return free

    def _begin(self, visit: Visit) -> asyncio.Task[None]:
        """Start a page, which counts as in hand until it has ended."""
        task = self._loop.create_task(self._page(visit))
        self._pages += 1
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._end, visit))
        return task

    def _end(self, visit: Visit, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_hand.discard(visit.at)
        self._pages -= 1
        # Most pages that end make no room for a whole job: the consumer may go on sleeping.
        if self._reader.health.leaving or self.room(jobs_to_come=0):
            self.on_room()

    def _check_profile(self, job: PageJob, manifest: Manifest) -> None:
        wanted = manifest.profile_digest if job.sent_to is None else job.sent_to.profile_digest
        if wanted != self._profile.digest:
            raise OcrfleetError(
                f"document {job.document} was registered for another revision of profile {self._profile.name}: "
                "producers and workers must have the same version"
            )

    def _read_manifest(self, document: str, _generation: int) -> Manifest:
        """Read a manifest, once for each generation: where its source lies may have changed in between."""
        return Manifest.from_bytes(self._store.get(keys.manifest(document)))

    def _terminal(self, job: PageJob, manifest: Manifest, redelivered: bool) -> set[int]:  # noqa: FBT001
        """Return the pages that need no work, from the ledger where it is to be trusted, else from the store."""
        known = self._ledger.terminal(job.document, job.generation, first=job.first, last=job.last)
        if known is None:
            seeded = seed_ledger(self._store, self._ledger, manifest, job.generation)
            # None: it has ended, as by being cancelled, or is gone.
            return set(range(job.first, job.last + 1)) if seeded is None else seeded.terminal
        if redelivered:
            pages = stored_pages(self._store, job.document, job.generation, first=job.first, last=job.last)
            self._ledger.mark(job.document, job.generation, sorted(pages.done))
            self._ledger.mark(job.document, job.generation, sorted(pages.failed), failed=True)
            return known | pages.terminal
        return known

    async def _page(self, visit: Visit) -> None:
        """Bring one page to its terminal record. Raises MovedError when it goes elsewhere, SupersededError when it is there."""
        with structlog.contextvars.bound_contextvars(page=visit.page):
            try:
                result = await self._reader.read(visit)
                with meters.stage("store", self._profile.name):
                    await self._patience.call(
                        record_pages, self._store, self._ledger, visit.job, visit.manifest, result
                    )
            except asyncio.CancelledError:
                if not self._cut_short:
                    raise
                await self._patience.call(self._ledger.release, *visit.at)
                raise DrainingError("the worker is leaving") from None
            except TransientError:  # the store is away, and the worker leaves
                with suppress(TransientError):
                    await self._patience.once(self._ledger.release, *visit.at)
                raise
            meters.ended(result, visit.job.queue)
            if result.status is PageStatus.FAILED:
                log.warning("page failed", reason=result.reason, detail=result.detail)
            else:
                log.debug("page done")
            if self._reader.health.stuck:
                raise FatalError("the engine hangs in a page and can't be interrupted")

    async def _write_run_record(self, job: PageJob, attempts: list[Attempt]) -> None:
        if not attempts:
            return
        record = RunRecord(job=job, worker=self._worker, finished=time.time(), attempts=tuple(attempts))
        key = keys.run_record(job.document, job.generation, job.first, uuid.uuid4().hex[:12])
        await self._patience.call(self._store.put, key, record.to_bytes())


def _selected(manifest: Manifest, job: PageJob) -> Iterator[int]:
    """Yield the pages of a job that the document's selection has."""
    for first, last in manifest.selection:
        yield from range(max(first, job.first), min(last, job.last) + 1)


def _raise_worst(ends: list[BaseException | None]) -> None:
    """Raise what matters most of what the pages of a job ended with: a broken worker before anything else."""
    errors = [end for end in ends if isinstance(end, BaseException)]
    for kind in (FatalError, DrainingError, TransientError, BaseException):
        for error in errors:
            if isinstance(error, kind):
                raise error
