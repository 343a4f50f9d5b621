"""The way of one page through this worker: attempts, one after the other, until it is done, failed, or goes elsewhere."""

from __future__ import annotations

import functools
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.broker.ledger import Hold
from ocrfleet.errors import (
    ConfigurationError,
    DamagedRecordError,
    FatalError,
    NotFoundError,
    PageFaultError,
    PermanentError,
    Reason,
    TransientError,
    UnavailableError,
)
from ocrfleet.profiles.profile import TextLayer
from ocrfleet.records.pages import PageResult, PageStatus, RetryState
from worker import metrics as meters
from worker.pipeline.admission import Admission
from worker.pipeline.attempt import Reading, Step
from worker.pipeline.errors import DrainingError, SkippedError, SupersededError
from worker.pipeline.health import Health
from worker.pipeline.retry import DOUBTS, better, rungs_above
from worker.pipeline.routing import MovedError, Router, back_home
from worker.pipeline.run_record import Attempt, Try
from worker.pipeline.utilisation import Feed

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Faults, Ledger
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.documents import Manifest
    from ocrfleet.records.messages import PageJob
    from ocrfleet.settings import Settings
    from ocrfleet.sources.sources import Sources
    from ocrfleet.storage.store import ObjectStore
    from worker.engines.base import Engine
    from worker.pipeline.store_retry import StoreRetry
    from worker.rendering.pool import RenderPool

log = structlog.get_logger(__name__)


@dataclass
class Visit:
    """A page while it is with this worker."""

    job: PageJob
    manifest: Manifest
    page: int
    #: as the ledger knows them
    faults: Faults
    #: those of its job, for the run record
    attempts: list[Attempt]
    #: how far up the ladder it is; None when it did not fall yet
    climb: RetryState | None = None
    #: the best text so far, of whichever ladder, once `recalled`
    best: PageResult | None = None
    recalled: bool = False
    #: rungs that could not be tried, or that would give the same again
    spent: set[int] = field(default_factory=set)
    #: why the last attempt failed
    fault: tuple[Reason, str] = (Reason.INTERNAL_ERROR, "there is no way to read it")

    @property
    def at(self) -> tuple[str, int, int]:
        """Document, generation and page: how store and ledger call it."""
        return self.job.document, self.job.generation, self.page


class PageReader:
    """Reads pages with one engine, as many at a time as it takes. For one event loop."""

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
        patience: StoreRetry,
        fetching: StoreRetry,
        worker: str,
    ) -> None:
        self._settings = settings
        self._profile = profile
        self._store = store
        self._ledger = ledger
        self._patience = patience
        self._worker = worker
        # What the engine takes at once, a page for each renderer, and some that are ready, as pages end in bursts.
        self.capacity = engine.concurrency + engine.ahead + renderers.size + engine.concurrency // 8
        self._admission = Admission(pages=self.capacity, pixels=settings.pixels_in_flight * 1_000_000)
        sides = [profile.render.long_side, *(rung.long_side or 0 for rung in profile.ladder)]
        self._most_pixels = min(profile.render.max_pixels, max(sides) ** 2)
        self._router = Router(profile, ledger, patience)
        self.feed = Feed(worker=worker, profile=profile, slots=engine.concurrency)
        self.health = Health()
        self._reading = Reading(
            settings=settings,
            engine=engine,
            renderers=renderers,
            store=store,
            sources=sources,
            patience=patience,
            fetching=fetching,
            admission=self._admission,
            router=self._router,
            feed=self.feed,
            health=self.health,
        )

    async def read(self, visit: Visit) -> PageResult:
        """Try a page until it is done or failed; its own faults are counted in the ledger, not in the message.

        Raises MovedError when it goes to another profile, SupersededError when another worker does it or did, DrainingError or TransientError when it must be given back,
        FatalError when this worker is broken; where no page had a part in that, as by a ConfigurationError, none is held.
        """
        if visit.faults.falls or visit.job.climbing is not None:
            await self._recall(visit)
            self._refuse_repetition(visit)
        while True:
            if visit.faults.deaths_alone >= self._settings.quarantine_deaths:
                return await self._quarantined(visit)
            step = await self._next(visit)
            if step is None:
                return await self._ended(visit)
            if visit.climb is not None:
                meters.tried_again(self._profile.name, visit.climb.fell)
            result = await self._come_to(visit, step)
            if result is not None:
                return result

    async def _come_to(self, visit: Visit, step: Step) -> PageResult | None:
        """Make one attempt, and return what the page came to by it; None when it is to be tried in another way."""
        try:
            result = await self._try(visit, step)
        except SkippedError:
            visit.spent.add(step.rung)
            await self._patience.call(self._ledger.release, *visit.at)
            return None
        except PermanentError as error:
            if error.reason is not Reason.ENGINE_FAILED:
                return await self._failed(visit, error.reason, error.detail)
            visit.fault = error.reason, error.detail
            visit.spent.add(step.rung)  # asked again in the same way, it would refuse again
            await self._patience.call(self._ledger.fault, *visit.at, error.reason, error.detail)
            await self._fell(visit, step, error.reason)
            return None
        except PageFaultError as fault:
            visit.fault = fault.reason, fault.detail
            log.warning("page attempt failed", reason=fault.reason, detail=fault.detail)
            await self._patience.call(self._ledger.fault, *visit.at, fault.reason, fault.detail)
            await self._fell(visit, step, fault.reason)
            return None
        if result.reason is None:
            if not result.blank and not result.text_layer:
                self.feed.read()
            return result
        log.warning("text not believed", rung=step.rung, reason=result.reason, detail=result.detail)
        meters.disbelieved(result, self._profile.name)
        await self._fell(visit, step, result.reason, result)
        return None

    async def _recall(self, visit: Visit) -> None:
        """Learn how far up the ladder a page came before, here or elsewhere, and the best text that there was.

        It is asked for only when a page falls: most pages never do.
        """
        visit.recalled = True
        # What is damaged, or of a newer version, is of no use; the page begins anew.
        with suppress(NotFoundError, DamagedRecordError):
            climb = RetryState.from_bytes(await self._patience.call(self._store.get, keys.climb(*visit.at)))
            visit.best = climb.best
            # Rungs are counted on one ladder: that of a profile whose workers are gone says nothing here.
            if climb.profile_digest == _owner(visit):
                visit.climb = climb
                if climb.detail is not None:
                    visit.fault = climb.fell, climb.detail
        if visit.best is None and visit.job.generation > 1:
            document, generation, page = visit.at
            with suppress(NotFoundError, DamagedRecordError):
                key = keys.page_failed(document, page, generation - 1)
                before = PageResult.from_bytes(await self._patience.call(self._store.get, key))
                visit.best = before if before.text else None

    def _refuse_repetition(self, visit: Visit) -> None:
        """Raise MovedError for a page that made its one attempt here already, and whose job came again."""
        climbing, climb = visit.job.climbing, visit.climb
        if climbing is None or climb is None:
            return
        if climb.rung > climbing.rung or (climb.rung == climbing.rung and climb.fell in DOUBTS):
            raise MovedError(back_home(visit.job, visit.manifest))

    async def _next(self, visit: Visit) -> Step | None:
        """Return how a page is tried next; None when there is no way left. Raises MovedError when another profile does it."""
        if visit.job.climbing is not None:
            limits = visit.job.climbing
            deadline = self._settings.page_deadline or limits.deadline
            profile = self._believing(visit).limited(max_tokens=limits.max_tokens, deadline=deadline)
            return Step(limits.rung, profile)
        # An engine that failed so often gets the page no more; another one may, or none.
        exhausted = visit.faults.attempts >= self._settings.page_attempts
        if visit.climb is None:
            if not exhausted:
                return self._step(visit, 0)
            # A worker died between counting the last fault and noting it.
            reason = Reason(visit.faults.reason or Reason.INTERNAL_ERROR)
            visit.fault = reason, visit.faults.detail or "it failed; the run records have its attempts"
            visit.climb = RetryState(profile_digest=_owner(visit), rung=0, fell=reason, best=visit.best)
        climb = visit.climb
        fell = {climb.fell} | ({visit.best.reason} if visit.best is not None and visit.best.reason else set())
        ways = rungs_above(self._profile.ladder, climb.rung, fell)
        if climb.fell not in DOUBTS:
            ways.append(climb.rung)  # it may pass: once more in the same way
        for number in ways:
            rung = self._profile.ladder[number - 1] if number else None
            elsewhere = rung is not None and (rung.profile is not None or rung.text_layer)
            if number in visit.spent or (exhausted and (not elsewhere or number == climb.rung)):
                continue
            if rung is None or rung.profile is None:
                return self._step(visit, number)
            to = await self._router.up(visit.job, number, rung)
            if to is not None:
                moved = MovedError(to)
                visit.attempts.append(Attempt(page=visit.page, rung=number, outcome=str(moved)))
                raise moved
            visit.spent.add(number)
            why = f"nobody serves {rung.profile}"
            visit.attempts.append(Attempt(page=visit.page, rung=number, outcome="skipped", detail=why))
        return None

    def _step(self, visit: Visit, number: int) -> Step:
        """Return an attempt in this worker, at a rung of this number."""
        profile, layer = self._believing(visit), self._profile.text_layer
        if number:
            rung = self._profile.ladder[number - 1]
            profile = profile.at(rung)
            layer = TextLayer.ONLY if rung.text_layer else TextLayer.IGNORE
        # What a person sets holds for every rung.
        return Step(number, profile.limited(deadline=self._settings.page_deadline), layer)

    def _believing(self, visit: Visit) -> Profile:
        """Return the profile as it judges this page: one that was sent here is to be in its own profile's scripts."""
        sent_to = visit.job.sent_to
        if sent_to is None or not sent_to.scripts:
            return self._profile
        judgement = self._profile.judgement.model_copy(update={"scripts": sent_to.scripts})
        return self._profile.model_copy(update={"judgement": judgement})

    async def _try(self, visit: Visit, step: Step) -> PageResult:
        """Make one attempt, with the page held by this worker; note it, and what it came to. Raises as Reading.attempt."""
        attempts = visit.attempts
        alone = visit.faults.deaths >= self._settings.suspect_deaths or visit.faults.deaths_alone > 0
        with ExitStack() as making_ready:
            making_ready.enter_context(self.feed.making_ready())
            async with self._admission.place(pixels=self._most_pixels, alone=alone) as place:
                if self.health.leaving:
                    raise DrainingError("the worker is leaving")
                hold = functools.partial(self._ledger.hold, worker=self._worker, alone=alone)
                held = await self._patience.call(hold, *visit.at)
                if held is Hold.TAKEN or (held is Hold.UNKNOWN and await self._patience.call(self._has_ended, visit)):
                    raise SupersededError
                current = Try(visit.page, step.rung, making_ready)
                try:
                    result = await self._reading.attempt(visit.job, visit.manifest, current, step, place)
                except SkippedError as error:
                    attempts.append(current.done("skipped", str(error)))
                    raise
                except (PermanentError, PageFaultError) as error:
                    attempts.append(current.done(error.reason, error.detail))
                    raise
                except (TransientError, DrainingError, MovedError, ConfigurationError, UnavailableError) as error:
                    self.health.broken |= isinstance(error, FatalError)
                    attempts.append(current.done(str(error)))
                    await self._patience.call(self._ledger.release, *visit.at)
                    raise
                except FatalError:
                    # The page stays in this worker's hand: the ledger will find that the worker died with it.
                    self.health.broken = True
                    attempts.append(current.done("worker broken"))
                    raise
                except Exception as error:  # whatever it is, it harms this page alone
                    log.exception("page raised")
                    what = f"{type(error).__name__} in ocrfleet; the worker's log has the place"
                    attempts.append(current.done(Reason.INTERNAL_ERROR, what))
                    raise PageFaultError(Reason.INTERNAL_ERROR, what) from error
                attempts.append(current.done(result.reason or "done", result.detail))
                return result

    async def _quarantined(self, visit: Visit) -> PageResult:
        """Return the failure of a page that workers died of. What was seen goes beside it: it differs from run to run."""
        document, generation, page = visit.at
        seen = visit.faults.death or "nobody saw how it ended"
        note = f"workers died {visit.faults.deaths_alone} times of this page alone; the last one: {seen}"
        await self._patience.call(self._store.put, keys.quarantined(document, page, generation), note.encode())
        detail = (
            "workers died while they worked on this page alone (ocrfleet quarantine says how); look at the page, then try it "
            "again: ocrfleet retry, or run --retry-failed"
        )
        return await self._failed(visit, Reason.WORKER_DIED, detail)

    def _has_ended(self, visit: Visit) -> bool:
        """Say whether the page's document has ended, as by being cancelled, or is gone."""
        document, generation, page = visit.at
        if self._store.exists(keys.status(document, generation)) or not self._store.exists(keys.manifest(document)):
            self._ledger.release(document, generation, page)
            return True
        return False

    async def _fell(self, visit: Visit, step: Step, reason: Reason, result: PageResult | None = None) -> None:
        """Note how far a page is that fell, and let go of it until its next attempt.

        Raises MovedError for one that came for a single attempt, FatalError when the engine hangs in it.
        """
        if not visit.recalled:
            await self._recall(visit)
        if result is not None:
            visit.best = better(result, visit.best)
        reached = step.rung if visit.climb is None else max(step.rung, visit.climb.rung)
        detail = visit.fault[1] if result is None else None
        visit.climb = RetryState(
            profile_digest=_owner(visit), rung=reached, fell=reason, detail=detail, best=visit.best
        )
        await self._patience.call(self._store.put, keys.climb(*visit.at), visit.climb.to_bytes())
        await self._patience.call(self._ledger.fell, *visit.at)
        await self._patience.call(self._ledger.release, *visit.at)
        if self.health.stuck:
            raise FatalError("the engine hangs in a page and can't be interrupted")
        if visit.job.climbing is not None:
            raise MovedError(back_home(visit.job, visit.manifest))
        inspect = functools.partial(self._ledger.inspect, worker=self._worker)
        visit.faults = await self._patience.call(inspect, *visit.at)

    async def _ended(self, visit: Visit) -> PageResult:
        """Return the failure of a page: with the best text that there was and why it is not believed, or for its last fault."""
        if not visit.recalled:
            await self._recall(visit)
        best = visit.best
        if best is not None and best.reason in DOUBTS:
            return best
        reason, detail = visit.fault
        if visit.climb is not None and reason is Reason.INTERNAL_ERROR:
            reason = visit.climb.fell
        if best is not None:  # of an earlier generation, that failed for something else
            return best.model_copy(update={"reason": reason, "detail": detail})
        return self._reading.told(self._profile, PageStatus.FAILED, page=visit.page, reason=reason, detail=detail)

    async def _failed(self, visit: Visit, reason: Reason, detail: str) -> PageResult:
        """Return the failure of a page for what lies outside of its text, with the best text that there was."""
        return (await self._ended(visit)).model_copy(update={"reason": reason, "detail": detail})


def _owner(visit: Visit) -> str:
    """Return the digest of the profile whose ladder a page is on: its document's, or that of the profile it was routed to."""
    routed = visit.job.routed
    return visit.manifest.profile_digest if routed is None else routed.profile_digest
