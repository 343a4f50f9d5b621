"""Page jobs: select the pages that need work, process them, and return the messages to publish afterwards.

Pages are admitted by number and size, not by job, so that one slow page of a job leaves no slot of the engine idle.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.broker.celery_app import ranges
from ocrfleet.broker.ledger import Mark
from ocrfleet.errors import FatalError, OcrfleetError, TransientError
from ocrfleet.records.documents import Manifest
from ocrfleet.records.messages import PageJob, Routed
from ocrfleet.records.runs import Attempt, RunRecord
from ocrfleet.storage.page_records import seed_ledger, stored_pages
from worker.pipeline.errors import DrainingError, RoutedError, SupersededError
from worker.pipeline.page import Page
from worker.pipeline.reader import PageReader

if TYPE_CHECKING:
    from worker.pipeline.context import WorkerContext

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """The messages to publish before a job is acknowledged."""

    #: every page of the document has a record: ask for its assembly
    assemble: bool
    #: jobs of the pages that go to other profiles, by profile
    routed: dict[str, list[PageJob]]


class JobRunner:
    """Runs the page jobs of one worker. For one event loop, but for `assembly` and what it is asked about room."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._store_retry = context.store_retry
        self._reader = PageReader(context)
        self.utilisation = self._reader.attempts.utilisation
        self.auditor = self._reader.attempts.auditor
        #: how many jobs fill the engine even when each has a single page left
        self.concurrency = self._capacity = self._reader.attempts.capacity
        #: is called, in any thread, when there may be room for another job
        self.on_room: Callable[[], None] = lambda: None
        self._jobs = self._pages = self._assemblies = 0
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        #: document, generation and page of those begun: another copy of their job leaves them alone
        self._in_hand: set[tuple[str, int, int]] = set()
        # Once for each generation: where the source of a document lies may change in between.
        self._manifest = functools.lru_cache(maxsize=64)(self._read_manifest)

    # ---- room for jobs

    @property
    def in_hand(self) -> int:
        """Messages that are being worked on, assemblies among them."""
        return self._jobs + self._assemblies

    def has_room(self, *, expected_jobs: int = 0) -> bool:
        """Say whether the worker should take another job, while so many are on their way to `run`."""
        expected_pages = expected_jobs * self._context.profile.pages_per_job
        return not self._context.health.leaving and self._pages + expected_pages < self._capacity

    @contextmanager
    def assembly(self) -> Iterator[None]:
        """Count an assembly as a job in hand while the block runs."""
        with self._lock:
            self._assemblies += 1
        try:
            yield
        finally:
            with self._lock:
                self._assemblies -= 1
            self.on_room()

    # ---- a job

    async def run(self, job: PageJob, *, redelivered: bool) -> JobOutcome:
        """Work on a job until each of its pages has a record or goes to another profile.

        Raises TransientError or DrainingError when the job must be given back, FatalError when this worker is broken.
        """
        self._jobs += 1
        try:
            with structlog.contextvars.bound_contextvars(document=job.document, generation=job.generation):
                pages = await self._begin_pages(job, redelivered=redelivered)
                ends = await asyncio.gather(*pages.values(), return_exceptions=True)
                return await self._outcome(job, list(pages), ends)
        finally:
            self._jobs -= 1
            self.on_room()

    async def _begin_pages(self, job: PageJob, *, redelivered: bool) -> dict[Page, asyncio.Task[None]]:
        """Begin the pages of a job that have no record and are not in hand."""
        at_most = job.last - job.first + 1
        self._pages += at_most  # until it is known how many need work
        claimed: list[int] = []
        begun: dict[Page, asyncio.Task[None]] = {}
        try:
            manifest = await self._store_retry.call(self._manifest, job.document, job.generation)
            claimed = self._claim(job, manifest)
            terminal = await self._store_retry.call(self._terminal, job, manifest, redelivered)
            numbers = [number for number in claimed if number not in terminal]
            if numbers:
                self._check_profile(job, manifest)
            inspect = functools.partial(self._context.ledger.inspect_all, worker=self._context.worker)
            faults = await self._store_retry.call(inspect, job.document, job.generation, numbers)
            attempts: list[Attempt] = []
            for number in numbers:
                sent_on = dict(job.routed.sent_on or {}) if job.routed is not None else {}
                page = Page(job, manifest, number, faults[number], attempts, sent_on)
                begun[page] = self._begin(page)
        finally:
            self._pages -= at_most
            left = set(claimed) - {page.number for page in begun}
            self._in_hand -= {(job.document, job.generation, number) for number in left}
        return begun

    def _claim(self, job: PageJob, manifest: Manifest) -> list[int]:
        """Claim the pages of a job, except those that another job of this worker has claimed, and return their numbers.

        A job may be published again while its first copy runs, or be delivered twice. The job that claimed a page ends after
        it. Pages are claimed before the ledger is asked which are terminal: a page that ends meanwhile is marked there before
        it is released.
        """
        selected = (
            number
            for first, last in manifest.selection
            for number in range(max(first, job.first), min(last, job.last) + 1)
        )
        free = [number for number in selected if (job.document, job.generation, number) not in self._in_hand]
        self._in_hand |= {(job.document, job.generation, number) for number in free}
        return free

    def _begin(self, page: Page) -> asyncio.Task[None]:
        """Begin a page, which counts as in hand until it has ended."""
        task = asyncio.get_running_loop().create_task(self._reader.process(page))
        self._pages += 1
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._end, page))
        return task

    def _end(self, page: Page, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_hand.discard(page.key)
        self._pages -= 1
        # Most pages that end make no room for a whole job: the consumer may go on sleeping.
        if self._context.health.leaving or self.has_room():
            self.on_room()

    def give_back_pages(self) -> None:
        """Cancel the pages that were begun, so that their jobs go back to the queue."""
        if self._tasks:
            log.warning("drain.pages_given_back", pages=len(self._tasks))
        self._context.health.giving_back = True
        for task in self._tasks:
            task.cancel()

    async def _outcome(self, job: PageJob, pages: list[Page], ends: list[BaseException | None]) -> JobOutcome:
        """Store the run record, and return the messages to publish. Raises the most severe error of the pages."""
        attempts = pages[0].attempts if pages else []
        if attempts:
            record = RunRecord(job=job, worker=self._context.worker, finished=time.time(), attempts=tuple(attempts))
            key = keys.run_record(job.document, job.generation, job.first, uuid.uuid4().hex[:12])
            await self._store_retry.call(self._context.store.put, key, record.to_bytes())
        errors = [end for end in ends if end is not None]
        for kind in (FatalError, DrainingError, TransientError, BaseException):
            for error in errors:
                if isinstance(error, kind) and not isinstance(error, RoutedError | SupersededError):
                    raise error
        # Also for a job without work: it may repeat one whose worker died before it published the assembly.
        mark = await self._store_retry.call(self._context.ledger.mark, job.document, job.generation, ())
        return JobOutcome(mark is Mark.LAST, _routed_jobs(job, pages, ends))

    # ---- which pages need work

    def _read_manifest(self, document: str, _generation: int) -> Manifest:
        return Manifest.from_bytes(self._context.store.get(keys.manifest(document)))

    def _check_profile(self, job: PageJob, manifest: Manifest) -> None:
        wanted = manifest.profile_digest if job.routed is None else job.routed.profile_digest
        if wanted != self._context.profile.digest:
            raise OcrfleetError(
                f"document {job.document} was registered for another revision of profile {self._context.profile.name}: "
                "producers and workers must have the same version"
            )

    def _terminal(self, job: PageJob, manifest: Manifest, redelivered: bool) -> set[int]:  # noqa: FBT001
        """Return the terminal pages, from the ledger if it was seeded, otherwise from the store."""
        store, ledger = self._context.store, self._context.ledger
        known = ledger.terminal(job.document, job.generation, first=job.first, last=job.last)
        if known is None:
            seeded = seed_ledger(store, ledger, manifest, job.generation)
            # None: the document has ended, as after a cancellation, or was deleted.
            return set(range(job.first, job.last + 1)) if seeded is None else seeded.terminal
        if redelivered:
            pages = stored_pages(store, job.document, job.generation, first=job.first, last=job.last)
            ledger.mark(job.document, job.generation, sorted(pages.done))
            ledger.mark(job.document, job.generation, sorted(pages.failed), failed=True)
            return known | pages.terminal
        return known


def _routed_jobs(job: PageJob, pages: list[Page], ends: list[BaseException | None]) -> dict[str, list[PageJob]]:
    """Return the jobs for routed pages, by profile. Consecutive pages with the same route stay in one job."""
    together: dict[bytes, tuple[Routed, list[int]]] = {}
    for page, end in zip(pages, ends, strict=True):
        if isinstance(end, RoutedError):
            _, numbers = together.setdefault(end.routed.to_bytes(), (end.routed, []))
            numbers.append(page.number)
    jobs: dict[str, list[PageJob]] = {}
    for routed, numbers in together.values():
        for first, last in ranges(numbers, job.last - job.first + 1):
            part = job.model_copy(update={"first": first, "last": last, "routed": routed})
            jobs.setdefault(routed.profile, []).append(part)
    return jobs
