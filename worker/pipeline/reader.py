"""Reads one page in this worker: attempt after attempt, until the page has a record or is routed to another profile."""

from __future__ import annotations

import asyncio
import functools
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.errors import (
    DamagedRecordError,
    FatalError,
    NotFoundError,
    PageFaultError,
    PermanentError,
    Reason,
    TransientError,
)
from ocrfleet.records.pages import PageResult, PageStatus, RetryState
from ocrfleet.records.runs import Attempt
from ocrfleet.storage.page_records import record_pages
from worker import metrics
from worker.pipeline.attempt import Attempts, page_result
from worker.pipeline.errors import DrainingError, RoutedError, StepSkippedError
from worker.pipeline.retry import REJECTIONS, RetryPolicy, Step, better
from worker.pipeline.routing import Router

if TYPE_CHECKING:
    from worker.pipeline.context import WorkerContext
    from worker.pipeline.page import Page

log = structlog.get_logger(__name__)


class PageReader:
    """Brings pages to their records with one engine. Made once the engine has started; for one event loop."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._profile = context.profile
        self._ledger = context.ledger
        self._store = context.store
        self._store_retry = context.store_retry
        self._policy = RetryPolicy(context.profile, context.settings)
        self._router = Router(context)
        self.attempts = Attempts(context, self._router)

    async def process(self, page: Page) -> None:
        """Store the record of one page.

        Raises RoutedError when the page goes to another profile, SupersededError when it needs no work, DrainingError or
        TransientError when it goes back to the queue, FatalError when this worker is broken.
        """
        with structlog.contextvars.bound_contextvars(page=page.number):
            try:
                result = await self._read(page)
                with metrics.stage("store", self._profile.name):
                    await self._store_retry.call(
                        record_pages, self._store, self._ledger, page.job, page.manifest, result
                    )
            except asyncio.CancelledError:
                if not self._context.health.giving_back:
                    raise
                await self._store_retry.call(self._ledger.release, *page.key)
                raise DrainingError("the worker is leaving") from None
            except TransientError:  # the store can't be reached, and the worker leaves
                with suppress(TransientError):
                    await self._store_retry.once(self._ledger.release, *page.key)
                raise
            metrics.count_page(result, page.job.queue)
            if result.status is PageStatus.FAILED:
                log.warning("page.failed", reason=result.reason, detail=result.detail)
            else:
                log.debug("page.done")
            self._raise_if_stuck()

    async def _read(self, page: Page) -> PageResult:
        """Make attempts until one is accepted or none is left; return the result, which is done or failed."""
        if page.faults.failed_attempts:
            await self._recall(page)
        while page.faults.deaths_alone < self._context.settings.quarantine_deaths:
            step = await self._next_step(page)
            if step is None:
                return await self._failed(page)
            result = await self._attempt(page, step)
            if result is not None:
                return result
        return await self._quarantined(page)

    async def _attempt(self, page: Page, step: Step) -> PageResult | None:
        """Make one attempt; return the page's result, or None if another attempt follows."""
        if page.failed_with is not None:
            metrics.count_retry(self._profile.name, page.failed_with)
        try:
            result = await self.attempts.make(page, step)
        except StepSkippedError:
            page.unavailable.add(step.number)
            await self._store_retry.call(self._ledger.release, *page.key)
            return None
        except PermanentError as error:
            if error.reason is not Reason.ENGINE_FAILED:
                failed = await self._failed(page)
                # A page that was tried before the budget was spent fails for what is known of it.
                tried = error.reason is Reason.RENDER_BUDGET and page.failed_with is not None
                return failed if tried else _with_reason(failed, error.reason, error.detail)
            page.unavailable.add(step.number)  # asked again in the same way, the engine would refuse again
            await self._note_fault(page, step, error)
            return None
        except PageFaultError as fault:
            log.warning("page.attempt_failed", step=step.rung, reason=fault.reason, detail=fault.detail)
            await self._note_fault(page, step, fault)
            return None
        # A page that part of is missing from its file is not tried again: no other attempt finds it.
        if result.reason not in (None, Reason.UNREADABLE):
            await self._note_rejection(page, step, result, result.reason)
            return None
        if result.reason is None and not result.blank and not result.text_layer:
            self.attempts.utilisation.add_page()
        return result

    # ---- which attempt is next

    async def _next_step(self, page: Page) -> Step | None:
        """Return how the page is tried next; None when nothing is left. Raises RoutedError when another profile tries it."""
        if page.retry is None and self._died_before_noting(page):
            reason = Reason(page.faults.reason or Reason.INTERNAL_ERROR)
            page.fault = reason, page.faults.detail or "it failed; the run records have its attempts"
            page.failed_with = reason
            page.retry = RetryState(profile_digest=self._profile.digest, rung=0, fell=reason, best=page.best)
        for number in self._policy.candidates(page):
            retry_step = self._policy.retry_step(number)
            if retry_step is None or retry_step.profile is None:
                return self._policy.step(page, number)
            routed = await self._router.by_step(page, number, retry_step)
            rung = page.steps_before + number
            if isinstance(routed, str):
                page.unavailable.add(number)
                page.attempts.append(Attempt(page=page.number, rung=rung, outcome="skipped", detail=routed))
            else:
                error = RoutedError(routed)
                page.attempts.append(Attempt(page=page.number, rung=rung, outcome=str(error)))
                raise error
        return None

    def _died_before_noting(self, page: Page) -> bool:
        """Say whether a worker stopped between counting the last allowed fault of a page and storing its retry state.

        Faults of another profile's engine, before it routed the page here, don't count.
        """
        sent_here = page.job.routed is not None and page.job.routed.rung is not None
        return not sent_here and page.faults.attempts >= self._context.settings.page_attempts

    async def _recall(self, page: Page) -> None:
        """Read how far the retries of a page are, and its best text.

        Read only after an attempt failed, here or before: most pages never need it.
        """
        page.recalled = True
        # A record that is damaged, or of a newer version, does not help: the page begins anew.
        with suppress(NotFoundError, DamagedRecordError):
            state = RetryState.from_bytes(await self._store_retry.call(self._store.get, keys.retry_state(*page.key)))
            page.best, page.failed_with = state.best, state.fell
            page.sent_on |= state.sent_on or {}
            # The numbers of retry steps are those of one profile.
            if state.profile_digest == self._profile.digest:
                page.retry = state
            elif self._profile.name in page.sent_on:
                page.retry = state.model_copy(update={"rung": page.sent_on[self._profile.name]})
            if page.retry is not None and state.detail is not None:
                page.fault = state.fell, state.detail
        if page.best is None and page.job.generation > 1:
            document, generation, number = page.key
            with suppress(NotFoundError, DamagedRecordError):
                key = keys.page_failed(document, number, generation - 1)
                before = PageResult.from_bytes(await self._store_retry.call(self._store.get, key))
                page.best = before if before.text else None

    # ---- after a failed attempt

    async def _note_fault(self, page: Page, step: Step, fault: PermanentError | PageFaultError) -> None:
        """Count a fault of the page itself, and store its retry state."""
        await self._store_retry.call(self._ledger.fault, *page.key, fault.reason, fault.detail)
        await self._store_retry_state(page, step, fault.reason, detail=fault.detail)

    async def _note_rejection(self, page: Page, step: Step, result: PageResult, reason: Reason) -> None:
        """Keep the better text, and store the retry state of a page whose text was rejected."""
        log.warning("page.text_rejected", step=step.rung, reason=reason, detail=result.detail)
        metrics.count_wasted_tokens(result, self._profile.name)
        await self._store_retry_state(page, step, reason, rejected=result)

    async def _store_retry_state(
        self,
        page: Page,
        step: Step,
        reason: Reason,
        *,
        detail: str | None = None,
        rejected: PageResult | None = None,
    ) -> None:
        """Store how far the retries of a page are, and release it until its next attempt.

        Raises FatalError when the engine hangs in it.
        """
        if not page.recalled:
            await self._recall(page)
        if rejected is not None:
            page.best = better(rejected, page.best)
        if detail is not None:
            page.fault = reason, detail
        page.failed_with = reason
        page.sent_on.pop(self._profile.name, None)
        page.retry = RetryState(
            profile_digest=self._profile.digest,
            rung=step.number if page.retry is None else max(step.number, page.retry.rung),
            fell=reason,
            detail=detail,
            best=page.best,
            sent_on=page.sent_on or None,
        )
        await self._store_retry.call(self._store.put, keys.retry_state(*page.key), page.retry.to_bytes())
        await self._store_retry.call(self._ledger.count_failed_attempt, *page.key)
        await self._store_retry.call(self._ledger.release, *page.key)
        self._raise_if_stuck()
        inspect = functools.partial(self._ledger.inspect, worker=self._context.worker)
        page.faults = await self._store_retry.call(inspect, *page.key)

    def _raise_if_stuck(self) -> None:
        if self._context.health.stuck:
            raise FatalError("the engine hangs in a page and can't be interrupted")

    # ---- how a page fails

    async def _failed(self, page: Page) -> PageResult:
        """Return the result of a page that no attempt read: its best text and why that is rejected, or its last fault."""
        if not page.recalled:
            await self._recall(page)
        best = page.best
        if best is not None and best.reason in REJECTIONS:
            return best
        reason, detail = page.fault
        if page.retry is not None and reason is Reason.INTERNAL_ERROR:
            reason = page.retry.fell
        if best is not None:  # of an earlier generation, which failed for another reason
            return best.model_copy(update={"reason": reason, "detail": detail})
        return page_result(
            self._context, self._profile, PageStatus.FAILED, page=page.number, reason=reason, detail=detail
        )

    async def _quarantined(self, page: Page) -> PageResult:
        """Return the result of a page with which workers died.

        The way in which they died differs from run to run. It is stored beside the result, as a note.
        """
        document, generation, number = page.key
        death = page.faults.death or "how it ended is not recorded"
        note = f"workers died {page.faults.deaths_alone} times of this page alone; the last one: {death}"
        await self._store_retry.call(self._store.put, keys.quarantined(document, number, generation), note.encode())
        detail = (
            "workers died while they worked on this page alone (ocrfleet quarantine says how); look at the page, then try it "
            "again: ocrfleet retry, or run --retry-failed"
        )
        return _with_reason(await self._failed(page), Reason.WORKER_DIED, detail)


def _with_reason(result: PageResult, reason: Reason, detail: str) -> PageResult:
    """Return the result of a page that failed for something outside of its text, which is kept."""
    return result.model_copy(update={"reason": reason, "detail": detail})
