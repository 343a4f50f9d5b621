"""One attempt at a page: fetch, render, look at it, recognise, judge."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ocrfleet import keys
from ocrfleet.errors import PageFaultError, PermanentError, Reason
from ocrfleet.profiles.profile import TextLayer
from ocrfleet.records.documents import Kind
from ocrfleet.records.pages import PageResult, PageStatus
from worker import metrics as meters
from worker.imaging import figures, ink
from worker.parsers import Parsed, parse
from worker.pipeline.admission import Admission
from worker.pipeline.errors import DrainingError, SkippedError
from worker.pipeline.health import Health
from worker.pipeline.verdict import check_script, judge
from worker.text_layer import trust as text_layer

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.documents import Manifest, Source
    from ocrfleet.records.messages import PageJob
    from ocrfleet.records.pages import Block, Line
    from ocrfleet.settings import Settings
    from ocrfleet.sources.sources import Sources
    from ocrfleet.storage.store import ObjectStore
    from worker.engines.base import Engine, Recognition
    from worker.imaging.page_image import PageImage
    from worker.pipeline.admission import Place
    from worker.pipeline.routing import Router
    from worker.pipeline.run_record import Try
    from worker.pipeline.store_retry import StoreRetry
    from worker.pipeline.utilisation import Feed
    from worker.pipeline.verdict import Rejection
    from worker.rendering.pool import RenderPool
    from worker.text_layer.trust import TextLayerWords


@dataclass(frozen=True, slots=True)
class Step:
    """How an attempt is made."""

    #: of the ladder; 0 is the profile as it stands
    rung: int
    #: as the rung changes it
    profile: Profile
    #: what becomes of the PDF's own text in this attempt
    text_layer: TextLayer = TextLayer.IGNORE


class Reading:
    """Makes attempts at pages with one engine, for one event loop."""

    def __init__(
        self,
        *,
        settings: Settings,
        engine: Engine,
        renderers: RenderPool,
        store: ObjectStore,
        sources: Sources,
        patience: StoreRetry,
        fetching: StoreRetry,
        admission: Admission,
        router: Router,
        feed: Feed,
        health: Health,
    ) -> None:
        self._render_deadline = settings.render_deadline
        self._passwords = settings.passwords()
        self._engine = engine
        self._renderers = renderers
        self._store = store
        self._sources = sources
        self._patience = patience
        self._fetching = fetching
        #: of each source that is being opened: a download keeps one thread waiting, not one for each page
        self._opening: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._admission = admission
        self._router = router
        self._feed = feed
        self._health = health
        self._engine_slots = asyncio.Semaphore(engine.concurrency + engine.ahead)

    async def attempt(self, job: PageJob, manifest: Manifest, current: Try, step: Step, place: Place) -> PageResult:
        """Return the page's result: done, or failed with a text that is not believed, and why.

        Raises SkippedError, MovedError, DrainingError, and whatever renderers, engine and store raise.
        """
        image, kind, layer = await self._render(manifest, current, step)
        self._admission.takes(place, image.width * image.height)
        known: dict[str, Any] = {
            "page": current.page,
            "width_px": image.width,
            "height_px": image.height,
            "width_pt": round(image.width_pt, 2),
            "height_pt": round(image.height_pt, 2),
            "rotation": image.rotation,
            "rung": step.rung,
        }
        if await self._patience.once(ink.is_blank, image):
            return self.told(step.profile, PageStatus.DONE, blank=True, **known)
        if step.text_layer is not TextLayer.IGNORE:
            own = await self._patience.once(_own_text, layer, image, step)
            if own is not None:
                text, lines, doubt = own
                return self._read(step, doubt, text_layer=True, text=text, lines=lines, **known)
        if self._router.rules and job.sent_to is None and not step.rung:
            await self._router.check(image, ink=await self._patience.once(ink.share, image), kind=kind)
        recognition = await self._recognise(image, current, step)
        with meters.stage("judge", step.profile.name):
            parsed, doubt = await self._patience.once(_judged, recognition, image, step.profile)
        return self._read(
            step,
            doubt,
            text=parsed.text,
            markdown=step.profile.prompt is not None,
            lines=recognition.lines,
            blocks=await self._with_figures(job, current.page, image, parsed),
            finish_reason=recognition.finish_reason,
            tokens=recognition.tokens,
            **known,
        )

    def _read(self, step: Step, doubt: Rejection | None, **known: Any) -> PageResult:
        """Return the result of an attempt that gave a text."""
        if doubt is None:
            return self.told(step.profile, PageStatus.DONE, **known)
        return self.told(step.profile, PageStatus.FAILED, reason=doubt.reason, detail=doubt.detail, **known)

    def told(self, profile: Profile, status: PageStatus, **known: Any) -> PageResult:
        """Return a result with what is known of who made it."""
        return PageResult(
            status=status,
            profile=profile.name,
            engine=profile.engine,
            engine_version=self._engine.version,
            model=profile.model,
            revision=profile.revision,
            **known,
        )

    async def _render(
        self, manifest: Manifest, current: Try, step: Step
    ) -> tuple[PageImage, Kind, TextLayerWords | None]:
        index, inner = manifest.locate(current.page)
        source = manifest.sources[index]
        layer = None
        begun = time.perf_counter()
        async with self._opened(source, step.profile.name) as fd:
            page = source.sha256, fd, source.kind, inner
            limits: dict[str, Any] = {"passwords": self._passwords, "deadline": self._render_deadline}
            with meters.stage("render", step.profile.name):
                image = await self._renderers.render(*page, step.profile.render, **limits)
                if step.text_layer is not TextLayer.IGNORE:
                    # What can't be taken out can't be trusted. A crash may pass, where there is nothing but the layer.
                    with suppress(PermanentError, *([] if _only_the_layer(step) else [PageFaultError])):
                        layer = await self._renderers.layer(*page, **limits)
        current.facts["render_seconds"] = round(time.perf_counter() - begun, 3)
        return image, source.kind, layer

    @asynccontextmanager
    async def _opened(self, source: Source, profile: str) -> AsyncIterator[int]:
        """Open a page's source, and make sure that it is what was registered until the block has ended.

        In threads: one that lies elsewhere is fetched, a file that was touched is hashed again, the cache makes room.
        """
        opened = self._sources.opened(source)
        with meters.stage("fetch", profile):
            async with self._opening.setdefault(source.uri, asyncio.Lock()):
                fd = await self._fetching.once(opened.__enter__)
        try:
            yield fd
        except BaseException as error:
            await self._patience.once(opened.__exit__, type(error), error, error.__traceback__)
            raise
        await self._patience.once(opened.__exit__, None, None, None)

    @asynccontextmanager
    async def _engine_slot(self) -> AsyncIterator[None]:
        with self._feed.waiting():
            await self._engine_slots.acquire()
        try:
            yield
        finally:
            self._engine_slots.release()

    async def _recognise(self, image: PageImage, current: Try, step: Step) -> Recognition:
        """Give a page to the engine once it has room; only then its deadline begins."""
        async with self._engine_slot():
            if self._health.stuck or self._health.broken:
                raise DrainingError("the engine hangs, or broke, in another page")
            current.making_ready.close()
            begun = time.perf_counter()
            if step.profile.sampling is not None:
                current.facts["temperature"] = step.profile.sampling.temperature
            try:
                with self._feed.with_engine(), meters.stage("recognise", step.profile.name):
                    async with asyncio.timeout(step.profile.page_deadline):
                        recognition = await self._engine.recognise(image, step.profile)
            except TimeoutError as error:
                self._health.stuck = not self._engine.interruptible
                detail = f"the engine did not answer within {step.profile.page_deadline:g} seconds"
                raise PageFaultError(Reason.ENGINE_DEADLINE, detail) from error
            finally:
                current.facts["recognise_seconds"] = round(time.perf_counter() - begun, 3)
        self._feed.wrote(recognition.tokens)
        meters.recognised(recognition, step.profile.name)
        if recognition.tokens is not None:
            current.facts["tokens"] = recognition.tokens
        return recognition

    async def _with_figures(self, job: PageJob, page: int, image: PageImage, parsed: Parsed) -> tuple[Block, ...]:
        """Store the pictures of a page, and return its blocks with their names."""
        blocks, pictures = await self._patience.once(figures.cut, page, image, parsed.blocks)
        for name, picture in pictures.items():
            await self._patience.call(self._store.create, keys.figure(job.document, name), picture)
        return blocks


def _only_the_layer(step: Step) -> bool:
    return step.text_layer is TextLayer.ONLY and not step.rung


def _judged(recognition: Recognition, image: PageImage, profile: Profile) -> tuple[Parsed, Rejection | None]:
    """Take apart what an engine wrote, and say whether it is believed. Takes long for a text of a million characters."""
    parsed = parse(profile.parser, recognition.text, width_px=image.width, height_px=image.height)
    if recognition.blocks and not parsed.blocks:
        parsed = Parsed(text=parsed.text, blocks=recognition.blocks)
    return parsed, judge(parsed, recognition, image, profile.judgement)


def _own_text(
    layer: TextLayerWords | None, image: PageImage, step: Step
) -> tuple[str, tuple[Line, ...], Rejection | None] | None:
    """Return the text that a page has already, its lines, and why it is not believed; None when the page is to be read.

    Raises SkippedError when a rung of the ladder wanted it and it can't be trusted, PermanentError when it is all that was
    asked for and there is none.
    """
    why = "the page's own text can't be taken out" if layer is None else text_layer.distrust(layer, image)
    doubt = None
    if layer is not None and why is None:
        text, lines = text_layer.reading(layer, image)
        doubt = check_script(text, step.profile.judgement)
        if doubt is None or _only_the_layer(step):
            return text, lines, doubt
    if step.text_layer is TextLayer.PREFER:
        return None
    if step.rung:
        raise SkippedError(why if doubt is None else doubt.detail)
    raise PermanentError(Reason.NO_TEXT_LAYER, f"{why}; with --text-layer prefer such pages are read")
