"""The way of one page through this worker: attempts, one after the other, until it is done, failed, or goes elsewhere."""

from __future__ import annotations

import functools
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.errors import (
    ConfigurationError,
    FatalError,
    PageFaultError,
    PermanentError,
    Reason,
    TransientError,
    UnavailableError,
)
from ocrfleet.jobs import Climb, PageStatus
from ocrfleet.profiles import TextLayer
from ocrfleet.storage import NotFoundError
from worker.admission import Admission
from worker.attempts import Attempt, Try
from worker.feed import Feed
from worker.ladder import DOUBTS, fallen, rungs_above
from worker.reading import DrainingError, Health, Reading, SkippedError, Step
from worker.routing import MovedError, Router, back_home

if TYPE_CHECKING:
    from ocrfleet.jobs import Manifest, PageJob, PageResult
    from ocrfleet.ledger import Faults, Ledger
    from ocrfleet.profiles import Profile
    from ocrfleet.settings import Settings
    from ocrfleet.storage import ObjectStore
    from worker.engines.base import Engine
    from worker.patience import Patience
    from worker.render import RenderPool

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
    climb: Climb | None = None
    #: rungs that could not be tried
    skipped: set[int] = field(default_factory=set)

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
        ledger: Ledger,
        patience: Patience,
        worker: str,
    ) -> None:
        self._settings = settings
        self._profile = profile
        self._store = store
        self._ledger = ledger
        self._patience = patience
        self._worker = worker
        self._deadline = settings.page_deadline or profile.page_deadline
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
            patience=patience,
            admission=self._admission,
            router=self._router,
            feed=self.feed,
            health=self.health,
        )

    async def read(self, visit: Visit) -> PageResult:
        """Try a page until it is done or failed; its own faults are counted in the ledger, not in the message.

        Raises MovedError when it goes to another profile, DrainingError or TransientError when it must be given back,
        FatalError when this worker is broken; where no page had a part in that, as by a ConfigurationError, none is held.
        """
        await self._find_climb(visit)
        while True:
            ended = self._given_up(visit)
            if ended is not None:
                return ended
            step = await self._next(visit)
            if step is None:
                return self._ended(visit, Reason.INTERNAL_ERROR, "there is no way left to read it")
            try:
                result = await self._try(visit, step)
            except SkippedError:
                visit.skipped.add(step.rung)
                continue
            except PermanentError as error:
                return self._ended(visit, error.reason, error.detail)
            except PageFaultError as fault:
                ended = await self._failed(visit, step, fault)
                if ended is not None:
                    return ended
            else:
                if result.reason is None:
                    return result
                log.warning("text not believed", rung=step.rung, reason=result.reason, detail=result.detail)
                visit.climb = fallen(visit.climb, rung=step.rung, fell=result.reason, result=result)
            await self._leave_rung(visit)

    async def _find_climb(self, visit: Visit) -> None:
        """Learn how far up the ladder a page came before, here or elsewhere."""
        if visit.faults.falls or visit.job.climbing is not None:
            with suppress(NotFoundError):
                stored = await self._patience.call(self._store.get, keys.climb(*visit.at))
                visit.climb = Climb.from_bytes(stored)

    def _given_up(self, visit: Visit) -> PageResult | None:
        faults = visit.faults
        if faults.deaths_alone >= self._settings.quarantine_deaths:
            detail = (
                f"the worker died {faults.deaths_alone} times while it worked on this page alone; "
                "look at the page, then run again with --retry-failed"
            )
            told = {"reason": Reason.WORKER_DIED, "detail": detail}
            return self._ended(visit, Reason.WORKER_DIED, detail).model_copy(update=told)
        if faults.attempts >= self._settings.page_attempts:
            # A worker died between counting the last fault and storing the failure.
            detail = f"it failed {faults.attempts} times; the run records have its attempts"
            return self._ended(visit, Reason(faults.reason or Reason.INTERNAL_ERROR), detail)
        return None

    async def _next(self, visit: Visit) -> Step | None:
        """Return how a page is tried next; None when there is no way left. Raises MovedError when another profile does it."""
        climbing, climb = visit.job.climbing, visit.climb
        if climbing is not None:
            limited = self._profile.limited(climbing.max_tokens)
            return Step(climbing.rung, limited, climbing.deadline or self._deadline)
        if climb is None:
            return self._step(0)
        ways = rungs_above(self._profile.ladder, climb.rung, climb.fell)
        if climb.fell not in DOUBTS:
            ways.append(climb.rung)  # it may pass: once more in the same way
        for number in ways:
            rung = self._profile.ladder[number - 1] if number else None
            if number in visit.skipped:
                continue
            if rung is None or rung.profile is None:
                return self._step(number)
            to = await self._router.up(visit.job, number, rung)
            if to is not None:
                moved = MovedError(to)
                visit.attempts.append(Attempt(page=visit.page, rung=number, outcome=str(moved)))
                raise moved
            visit.skipped.add(number)
            why = f"nobody serves {rung.profile}"
            visit.attempts.append(Attempt(page=visit.page, rung=number, outcome="skipped", detail=why))
        return None

    def _step(self, number: int) -> Step:
        """Return an attempt in this worker, at a rung of this number."""
        if not number:
            return Step(0, self._profile, self._deadline, self._profile.text_layer)
        rung = self._profile.ladder[number - 1]
        layer = TextLayer.ONLY if rung.text_layer else TextLayer.IGNORE
        return Step(number, self._profile.at(rung), rung.deadline or self._deadline, layer)

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
                await self._patience.call(hold, *visit.at)
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

    async def _failed(self, visit: Visit, step: Step, fault: PageFaultError) -> PageResult | None:
        """Count a fault that is not of the text; return the page's failure when it was one too many."""
        log.warning("page attempt failed", reason=fault.reason, detail=fault.detail)
        count = await self._patience.call(self._ledger.fault, *visit.at, fault.reason)
        if count >= self._settings.page_attempts:
            return self._ended(visit, fault.reason, fault.detail)
        visit.climb = fallen(visit.climb, rung=step.rung, fell=fault.reason, result=None)
        return None

    async def _leave_rung(self, visit: Visit) -> None:
        """Note how far a page is that fell, and let go of it until its next attempt.

        Raises MovedError for one that came for a single attempt, FatalError when the engine hangs in it.
        """
        climb, climbing = visit.climb, visit.job.climbing
        if climb is not None and (climbing is not None or climb.fell in DOUBTS):
            await self._patience.call(self._store.put, keys.climb(*visit.at), climb.to_bytes())
            await self._patience.call(self._ledger.fell, *visit.at)
        await self._patience.call(self._ledger.release, *visit.at)
        if self.health.stuck:
            raise FatalError("the engine hangs in a page and can't be interrupted")
        if climbing is not None:
            raise MovedError(back_home(visit.job, visit.manifest))
        inspect = functools.partial(self._ledger.inspect, worker=self._worker)
        visit.faults = await self._patience.call(inspect, *visit.at)

    def _ended(self, visit: Visit, reason: Reason, detail: str) -> PageResult:
        """Return the failure of a page: with the best text that there was and why it is not believed, or for a reason."""
        if visit.climb is not None and visit.climb.best is not None:
            return visit.climb.best
        return self._reading.told(self._profile, PageStatus.FAILED, page=visit.page, reason=reason, detail=detail)
