"""One attempt at a page: hold it in the ledger, render it, recognise it with the engine, check the text."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog

from ocrfleet import keys
from ocrfleet.broker.ledger import Hold
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
from ocrfleet.profiles.profile import TextLayer
from ocrfleet.records.pages import PageResult, PageStatus
from worker import metrics
from worker.imaging import figures, ink
from worker.parsers import Parsed, parse
from worker.pipeline import confidence
from worker.pipeline.admission import Admission
from worker.pipeline.audit import Auditor
from worker.pipeline.errors import DrainingError, RoutedError, StepSkippedError, SupersededError
from worker.pipeline.images import PageImages
from worker.pipeline.run_record import RunningAttempt
from worker.pipeline.text_layer import from_text_layer
from worker.pipeline.utilisation import Utilisation
from worker.pipeline.verdict import Rejection, judge
from worker.words.model_words import placed_words

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.pages import Block, Word
    from worker.engines.base import Recognition
    from worker.imaging.page_image import PageImage
    from worker.pipeline.admission import Place
    from worker.pipeline.context import WorkerContext
    from worker.pipeline.page import Page
    from worker.pipeline.retry import Step
    from worker.pipeline.routing import Router

log = structlog.get_logger(__name__)

#: The largest share of an image of the page that may be missing: a lower margin. With more, the text can't be complete.
MOST_MISSING = 0.05


class Attempts:
    """Makes attempts at pages with one engine. Made once the engine has started; for one event loop."""

    def __init__(self, context: WorkerContext, router: Router) -> None:
        settings, profile, engine = context.settings, context.profile, context.engine
        self._context = context
        self._router = router
        self._images = PageImages(context)
        # The pages that the engine reads at once, one for each renderer, and some prepared ones, because pages end in bursts.
        self.capacity = engine.concurrency + engine.ahead + context.renderers.size + engine.concurrency // 8
        self._admission = Admission(pages=self.capacity, pixels=settings.pixels_in_flight * 1_000_000)
        steps = [profile, *(profile.at(step) for step in profile.ladder if step.long_side is not None)]
        self._most_pixels = max(step.render.most_pixels for step in steps)
        self._engine_slots = asyncio.Semaphore(engine.concurrency + engine.ahead)
        self.auditor = Auditor(profile, settings)
        self.utilisation = Utilisation(worker=context.worker, profile=profile, slots=engine.concurrency)

    async def make(self, page: Page, step: Step) -> PageResult:
        """Make one attempt and return its result: done, or failed with the text that is rejected, and why.

        Raises StepSkippedError, PageFaultError or PermanentError for the page, RoutedError or SupersededError when it is not
        for this worker, DrainingError or TransientError when it goes back to the queue, FatalError when this worker is broken.
        No page is held against the worker that raised a ConfigurationError or UnavailableError: it had no part in that.
        """
        alone = page.faults.deaths >= self._context.settings.suspect_deaths or page.faults.deaths_alone > 0
        with ExitStack() as preparing:
            preparing.enter_context(self.utilisation.preparing())
            async with self._admission.place(pixels=self._most_pixels, alone=alone) as place:
                async with self._in_hand(page, alone=alone):
                    attempt = RunningAttempt(page.number, step.rung, preparing)
                    async with self._recorded(page, attempt):
                        result = await self._read(page, step, attempt, place)
                page.attempts.append(attempt.ended(result.reason or "done", result.detail))
                return result

    @asynccontextmanager
    async def _in_hand(self, page: Page, *, alone: bool) -> AsyncIterator[None]:
        """Hold the page in the ledger, until the block ends as the only page in flight if `alone`.

        Then its result or its fault is still to be stored, beside other pages: it must not be blamed alone for a death that these
        cause. Raises SupersededError if another worker has it, or if its document was cancelled.
        """
        if self._context.health.leaving:
            raise DrainingError("the worker is leaving")
        retry, ledger = self._context.store_retry, self._context.ledger
        held = await retry.call(functools.partial(self._hold, alone=alone), page)
        if held is Hold.TAKEN:
            raise SupersededError
        if held is Hold.UNKNOWN and await retry.call(self._document_ended, page):
            await retry.call(ledger.release, *page.key)
            raise SupersededError
        shared = functools.partial(retry.call, functools.partial(self._hold, alone=False), page)
        try:
            yield
        except (PermanentError, PageFaultError):
            if alone:
                await shared()
            raise
        if alone:
            await shared()

    def _hold(self, page: Page, *, alone: bool) -> Hold:
        return self._context.ledger.hold(*page.key, worker=self._context.worker, alone=alone)

    def _document_ended(self, page: Page) -> bool:
        """Say whether the page's document has a status, as after a cancellation, or was deleted."""
        store, (document, generation, _) = self._context.store, page.key
        return store.exists(keys.status(document, generation)) or not store.exists(keys.manifest(document))

    @asynccontextmanager
    async def _recorded(self, page: Page, attempt: RunningAttempt) -> AsyncIterator[None]:
        """Add an attempt that raises to the run record; release the page where the error is not its own."""
        try:
            yield
        except StepSkippedError as error:
            page.attempts.append(attempt.ended("skipped", str(error)))
            raise
        except (PermanentError, PageFaultError) as error:
            page.attempts.append(attempt.ended(error.reason, error.detail))
            raise
        except (TransientError, DrainingError, RoutedError, ConfigurationError, UnavailableError) as error:
            self._context.health.broken |= isinstance(error, FatalError)
            page.attempts.append(attempt.ended(str(error)))
            await self._context.store_retry.call(self._context.ledger.release, *page.key)
            raise
        except FatalError:
            # The worker keeps the page in the ledger, which will count that the worker died with it.
            self._context.health.broken = True
            page.attempts.append(attempt.ended("worker broken"))
            raise
        except Exception as error:  # an error in our own code fails this page only
            log.exception("page.raised")
            detail = f"{type(error).__name__} in ocrfleet; the worker's log has the place"
            page.attempts.append(attempt.ended(Reason.INTERNAL_ERROR, detail))
            raise PageFaultError(Reason.INTERNAL_ERROR, detail) from error

    async def _read(self, page: Page, step: Step, attempt: RunningAttempt, place: Place) -> PageResult:
        """Render a page, check whether it is blank or has a usable text layer, and recognise it otherwise."""
        begun = time.perf_counter()
        rendered = await self._images.render(page, step)
        attempt.facts["render_seconds"] = round(time.perf_counter() - begun, 3)
        image = rendered.image
        self._admission.resize(place, image.width * image.height)
        in_thread = self._context.store_retry.once
        result = functools.partial(
            page_result,
            self._context,
            step.profile,
            page=page.number,
            width_px=image.width,
            height_px=image.height,
            width_pt=round(image.width_pt, 2),
            height_pt=round(image.height_pt, 2),
            rotation=image.rotation,
            warnings=image.warnings,
            rung=step.rung,
        )
        incomplete = _incomplete(image)
        if await in_thread(ink.is_blank, image):
            return result(
                **_status(incomplete), blank=incomplete is None, confidence=1.0 if incomplete is None else 0.0
            )
        if step.text_layer is not TextLayer.IGNORE:
            own = await in_thread(from_text_layer, rendered.words, image, step)
            if own is not None:
                parsed = Parsed(text=own.page.text, blocks=own.page.blocks)
                return result(
                    **_status(incomplete or own.rejection),
                    text_layer=True,
                    confidence=confidence.TEXT_LAYER if (incomplete or own.rejection) is None else 0.0,
                    text=parsed.text,
                    lines=own.page.lines,
                    words=own.page.words,
                    blocks=await self._store_figures(page, image, parsed),
                )
        if not step.number and self._router.has_routes(page):
            share = await in_thread(ink.share, image)
            routed = await self._router.by_route(image, ink=share, kind=rendered.kind)
            if routed is not None:
                raise RoutedError(routed)
        async with self._finding_words(image) as seen:
            recognition = await self._recognise(image, step, attempt)
            with metrics.stage("judge", step.profile.name):
                parsed, rejection = await in_thread(_parse_and_judge, recognition, image, step.profile)
            words = recognition.words
            if seen is not None and not words and rejection is None:
                words = await self._place_words(parsed, image, seen)
        failure = incomplete or rejection
        return result(
            **_status(failure),
            **(await self._assess(page, step, image, parsed, recognition) if failure is None else {"confidence": 0.0}),
            text=parsed.text,
            markdown=step.profile.prompt is not None,
            lines=recognition.lines,
            words=words,
            blocks=await self._store_figures(page, image, parsed),
            finish_reason=recognition.finish_reason,
            tokens=recognition.tokens,
            **_read_by(recognition),
        )

    @asynccontextmanager
    async def _finding_words(self, image: PageImage) -> AsyncIterator[asyncio.Task[tuple[Word, ...]] | None]:
        """Find the words on a page image while the engine reads it; None where nobody places words."""
        finder = self._context.words
        seen = asyncio.create_task(finder.find(image)) if finder is not None else None
        try:
            yield seen
        finally:
            if seen is not None:
                seen.cancel()

    async def _place_words(
        self, parsed: Parsed, image: PageImage, seen: asyncio.Task[tuple[Word, ...]]
    ) -> tuple[Word, ...]:
        """Return the words of a text with their places; none where they can't be found: a page is not lost for that."""
        try:
            found = await seen
        except OcrfleetError as error:
            log.warning("words.not_found", error=str(error))
            return ()
        place = functools.partial(placed_words, width=image.width, height=image.height)
        return await self._context.store_retry.once(place, parsed.text, parsed.blocks, found)

    @asynccontextmanager
    async def _engine_slot(self) -> AsyncIterator[None]:
        with self.utilisation.waiting():
            await self._engine_slots.acquire()
        try:
            yield
        finally:
            self._engine_slots.release()

    async def _recognise(self, image: PageImage, step: Step, attempt: RunningAttempt) -> Recognition:
        """Give a page to the engine once it has room. The page's deadline begins then."""
        health, engine = self._context.health, self._context.engine
        async with self._engine_slot():
            if health.stuck or health.broken:
                raise DrainingError("the engine hangs, or broke, in another page")
            attempt.preparing.close()
            if step.profile.sampling is not None:
                attempt.facts["temperature"] = step.profile.sampling.temperature
            begun = time.perf_counter()
            try:
                with self.utilisation.recognising(), metrics.stage("recognise", step.profile.name):
                    async with asyncio.timeout(step.profile.page_deadline):
                        recognition = await engine.recognise(image, step.profile)
            except TimeoutError as error:
                health.stuck = not engine.interruptible
                detail = f"the engine did not answer within {step.profile.page_deadline:g} seconds"
                raise PageFaultError(Reason.ENGINE_DEADLINE, detail) from error
            finally:
                attempt.facts["recognise_seconds"] = round(time.perf_counter() - begun, 3)
        self.utilisation.add_tokens(recognition.tokens)
        metrics.count_tokens(recognition, step.profile.name)
        if recognition.tokens is not None:
            attempt.facts["tokens"] = recognition.tokens
        return recognition

    async def _assess(
        self, page: Page, step: Step, image: PageImage, parsed: Parsed, recognition: Recognition
    ) -> dict[str, Any]:
        """Return the confidence in an accepted text, and whether a person should look at the page, as fields of its result."""
        profile, in_thread = step.profile, self._context.store_retry.once
        with metrics.stage("judge", profile.name):
            evidence = await in_thread(confidence.gather, parsed, recognition, image)
            worst = await in_thread(confidence.worst_region, parsed, recognition)
        read_by = recognition.read_by
        engine = profile.engine if read_by is None else read_by.engine
        chance, audit = confidence.chance(evidence, engine), None
        if self.auditor.wants(page, engine, doubted=chance < profile.review_below):
            with metrics.stage("audit", profile.name):
                audit = await self.auditor.read(image, parsed.text)
        reasons = []
        if audit is not None:
            chance = confidence.chance(evidence, engine, audit.agreement)
            if not audit.agrees:
                reasons.append(f"{audit.engine} reads another text: {audit.agreement:.0%} of this one")
        if chance < profile.review_below:
            reasons.append(f"its confidence is {chance:.2f}, below {profile.review_below:g}")
        return {
            "confidence": chance,
            "worst_region": worst,
            "audit": audit,
            "review": bool(reasons),
            "review_reason": "; ".join(reasons) or None,
        }

    async def _store_figures(self, page: Page, image: PageImage, parsed: Parsed) -> tuple[Block, ...]:
        """Store the figures of a page, and return its blocks with their names."""
        retry = self._context.store_retry
        blocks, pictures = await retry.once(figures.cut, page.number, image, parsed.blocks)
        for name, picture in pictures.items():
            await retry.call(self._context.store.create, keys.figure(page.job.document, name), picture)
        return blocks


def page_result(context: WorkerContext, profile: Profile, status: PageStatus, **fields: Any) -> PageResult:
    """Return the result of a page, with the engine and model that made it, unless `fields` name others."""
    made_by = {
        "engine": profile.engine,
        "engine_version": context.engine.version,
        "model": profile.model,
        "revision": profile.revision,
    }
    if status is PageStatus.FAILED:
        fields.setdefault("confidence", 0.0)
    return PageResult(status=status, profile=profile.name, **(made_by | fields))


def _read_by(recognition: Recognition) -> dict[str, Any]:
    """Return the engine and model of a text that another engine read for this worker's."""
    if recognition.read_by is None:
        return {}
    engine, version, model = recognition.read_by
    return {"engine": engine, "engine_version": version, "model": model, "revision": "installed"}


def _incomplete(image: PageImage) -> Rejection | None:
    """Return why the text of a page can't be complete: part of its image is missing. None if the image is complete."""
    if image.missing <= MOST_MISSING:
        return None
    detail = f"{image.missing:.0%} of the page's image is missing from its file: copy, scan or export it again"
    return Rejection(Reason.UNREADABLE, detail)


def _status(rejection: Rejection | None) -> dict[str, Any]:
    if rejection is None:
        return {"status": PageStatus.DONE}
    return {"status": PageStatus.FAILED, "reason": rejection.reason, "detail": rejection.detail}


def _parse_and_judge(recognition: Recognition, image: PageImage, profile: Profile) -> tuple[Parsed, Rejection | None]:
    """Parse what an engine wrote, and return why it is rejected. A text of a million characters takes long."""
    parsed = parse(profile.parser, recognition.text, width_px=image.width, height_px=image.height)
    if recognition.blocks and not parsed.blocks:
        parsed = Parsed(text=parsed.text, blocks=recognition.blocks)
    return parsed, judge(parsed, recognition, image, profile.judgement)
