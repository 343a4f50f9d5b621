"""The way of one page: wait for a place, fetch, render, judge, recognise; again where it failed by itself."""

from __future__ import annotations

import asyncio
import functools
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import structlog

from ocrfleet.errors import (
    ConfigurationError,
    FatalError,
    OcrfleetError,
    PageFaultError,
    PermanentError,
    Reason,
    TransientError,
    UnavailableError,
)
from ocrfleet.jobs import PageResult, PageStatus
from ocrfleet.profiles import Parser
from ocrfleet.sources import opened
from worker import grounding, judge
from worker.admission import Admission
from worker.attempts import Try
from worker.feed import Feed
from worker.routing import RoutedError, Router

if TYPE_CHECKING:
    from ocrfleet.jobs import Kind, Manifest, PageJob
    from ocrfleet.ledger import Faults, Ledger
    from ocrfleet.profiles import Profile
    from ocrfleet.settings import Settings
    from worker.admission import Place
    from worker.attempts import Attempt
    from worker.engines.base import Engine, PageImage, Recognition
    from worker.patience import Patience
    from worker.render import RenderPool

log = structlog.get_logger(__name__)


class DrainingError(OcrfleetError):
    """The worker is leaving: the page goes to somebody else."""


class PageReader:
    """Reads pages with one engine, as many at a time as it takes. For one event loop.

    `stuck`: a page hangs in an engine that can't be interrupted, and no other may be given to it.
    `broken`: the engine is, or it may not go on. `draining`: no page is begun any more.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        profile: Profile,
        engine: Engine,
        renderers: RenderPool,
        ledger: Ledger,
        patience: Patience,
        worker: str,
    ) -> None:
        self._settings = settings
        self._profile = profile
        self._engine = engine
        self._renderers = renderers
        self._ledger = ledger
        self._patience = patience
        self._worker = worker
        self._passwords = settings.passwords()
        self._deadline = settings.page_deadline or profile.page_deadline
        # What the engine takes at once, a page for each renderer, and some that are ready, as pages end in bursts.
        self.capacity = engine.concurrency + engine.ahead + renderers.size + engine.concurrency // 8
        self._admission = Admission(pages=self.capacity, pixels=settings.pixels_in_flight * 1_000_000)
        self._most_pixels = min(profile.render.max_pixels, profile.render.long_side**2)
        self._engine_slots = asyncio.Semaphore(engine.concurrency + engine.ahead)
        self._router = Router(profile, ledger, patience)
        self.feed = Feed(worker=worker, profile=profile, slots=engine.concurrency)
        self.stuck = self.broken = self.draining = False

    @property
    def leaving(self) -> bool:
        """Whether pages that were not begun go to other workers."""
        return self.stuck or self.broken or self.draining

    async def read(  # noqa: C901 - one way out for each kind of error
        self, job: PageJob, manifest: Manifest, page: int, faults: Faults, attempts: list[Attempt]
    ) -> PageResult:
        """Try a page until it is done or failed; its own faults are counted in the ledger, not in the message.

        `faults` are those of the page so far.

        Raises RoutedError when it goes to another profile, DrainingError or TransientError when it must be given back,
        FatalError when this worker is broken; where no page had a part in that, as by a ConfigurationError, none is held.
        """
        at = job.document, job.generation, page
        while True:
            given_up = self._given_up(page, faults)
            if given_up is not None:
                return given_up
            alone = faults.deaths >= self._settings.suspect_deaths or faults.deaths_alone > 0
            with ExitStack() as making_ready:
                making_ready.enter_context(self.feed.making_ready())
                async with self._admission.place(pixels=self._most_pixels, alone=alone) as place:
                    if self.leaving:
                        raise DrainingError("the worker is leaving")
                    await self._patience.call(
                        functools.partial(self._ledger.hold, worker=self._worker, alone=alone), *at
                    )
                    current = Try(page, faults.attempts + 1, making_ready)
                    try:
                        result = await self._attempt(job, manifest, current, place)
                    except PermanentError as error:
                        attempts.append(current.done(error.reason))
                        return self._failed(page, error.reason, error.detail)
                    except (TransientError, DrainingError, RoutedError, ConfigurationError, UnavailableError) as error:
                        self.broken |= isinstance(error, FatalError)
                        attempts.append(current.done(str(error)))
                        await self._patience.call(self._ledger.release, *at)
                        raise
                    except FatalError:
                        # The page stays in this worker's hand: the ledger will find that the worker died with it.
                        self.broken = True
                        attempts.append(current.done("worker broken"))
                        raise
                    except Exception as error:  # noqa: BLE001 - whatever it is, it harms this page alone
                        fault = _fault_of(error)
                    else:
                        attempts.append(current.done("done"))
                        return result
            attempts.append(current.done(fault.reason))
            log.warning("page attempt failed", page=page, reason=fault.reason, detail=fault.detail)
            count = await self._patience.call(self._ledger.fault, *at, fault.reason)
            if count >= self._settings.page_attempts:
                return self._failed(page, fault.reason, fault.detail)
            await self._patience.call(self._ledger.release, *at)
            if self.stuck:
                raise FatalError("the engine hangs in a page and can't be interrupted")
            faults = await self._patience.call(functools.partial(self._ledger.inspect, worker=self._worker), *at)

    def _given_up(self, page: int, faults: Faults) -> PageResult | None:
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
        return None

    async def _attempt(self, job: PageJob, manifest: Manifest, current: Try, place: Place) -> PageResult:
        page = current.page
        image, kind = await self._render(manifest, current)
        self._admission.takes(place, image.width * image.height)
        size = {
            "width_px": image.width,
            "height_px": image.height,
            "width_pt": round(image.width_pt, 2),
            "height_pt": round(image.height_pt, 2),
        }
        if await self._patience.once(judge.is_blank, image):
            return self._told(page, PageStatus.DONE, blank=True, **size)
        if self._router.rules and job.routed is None:
            await self._router.check(image, ink=await self._patience.once(judge.ink, image), kind=kind)
        recognition = await self._recognise(image, self._profile.at(current.number), current)
        text, blocks = recognition.text, recognition.blocks
        if self._profile.parser is Parser.GROUNDING:
            text, blocks = grounding.parse(text, width_px=image.width, height_px=image.height)
        return self._told(
            page,
            PageStatus.DONE,
            text=text,
            markdown=self._profile.prompt is not None,
            lines=recognition.lines,
            blocks=blocks,
            finish_reason=recognition.finish_reason,
            tokens=recognition.tokens,
            **size,
        )

    async def _render(self, manifest: Manifest, current: Try) -> tuple[PageImage, Kind]:
        index, inner = manifest.locate(current.page)
        source = manifest.sources[index]
        begun = time.perf_counter()
        with ExitStack() as stack:
            # In a thread: a file that was touched is hashed again, which takes its time.
            fd = await self._patience.once(stack.enter_context, opened(source))
            image = await self._renderers.render(
                source.sha256,
                fd,
                source.kind,
                inner,
                self._profile.render,
                passwords=self._passwords,
                deadline=self._settings.render_deadline,
            )
        current.facts["render_seconds"] = round(time.perf_counter() - begun, 3)
        return image, source.kind

    async def _recognise(self, image: PageImage, profile: Profile, current: Try) -> Recognition:
        """Give a page to the engine once it has room; only then its deadline begins."""
        async with self._engine_slots:
            if self.stuck or self.broken:
                raise DrainingError("the engine hangs, or broke, in another page")
            current.making_ready.close()
            begun = time.perf_counter()
            if profile.sampling is not None:
                current.facts["temperature"] = profile.sampling.temperature
            try:
                with self.feed.with_engine():
                    async with asyncio.timeout(self._deadline):
                        recognition = await self._engine.recognise(image, profile)
            except TimeoutError as error:
                self.stuck = not self._engine.interruptible
                detail = f"the engine did not answer within {self._deadline:g} seconds"
                raise PageFaultError(Reason.ENGINE_DEADLINE, detail) from error
            finally:
                current.facts["recognise_seconds"] = round(time.perf_counter() - begun, 3)
        self.feed.read(recognition.tokens)
        if recognition.tokens is not None:
            current.facts["tokens"] = recognition.tokens
        return recognition

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


def _fault_of(error: Exception) -> PageFaultError:
    """Take an error that nobody foresaw for the page's own fault: it is tried again, then it fails alone."""
    if isinstance(error, PageFaultError):
        return error
    log.error("page raised", exc_info=error)
    return PageFaultError(Reason.INTERNAL_ERROR, f"{type(error).__name__} in ocrfleet; the worker's log has the place")
