"""Page images: opens the source of a page and renders it, with the PDF's text layer where that is wanted."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PageFaultError, PermanentError, Reason
from ocrfleet.profiles.profile import TextLayer
from worker import metrics
from worker.pipeline.render_budget import RenderBudgets

if TYPE_CHECKING:
    from ocrfleet.records.documents import Kind, Source
    from worker.imaging.page_image import PageImage
    from worker.pipeline.context import WorkerContext
    from worker.pipeline.page import Page
    from worker.pipeline.retry import Step
    from worker.text_layer.trust import TextLayerWords


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """The image of a page, the kind of its source, and its words if they were asked for and can be extracted."""

    image: PageImage
    kind: Kind
    words: TextLayerWords | None


class PageImages:
    """Renders pages from the sources of their documents. For one event loop."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._limits: dict[str, Any] = {
            "passwords": context.settings.passwords(),
            "deadline": context.settings.render_deadline,
        }
        self._budgets = RenderBudgets(context)
        #: Pages wait here and not for the renderers, so that those of a document whose budget was spent meanwhile are not drawn.
        self._turns = asyncio.Semaphore(2 * context.renderers.size)
        #: a lock for each source that is being opened: a download keeps one thread waiting, not one for each page
        self._opening: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def render(self, page: Page, step: Step) -> RenderedPage:
        """Render a page with the settings of its retry step. Raises what `Sources.opened` and `RenderPool.render` raise."""
        index, page_in_source = page.manifest.locate(page.number)
        source = page.manifest.sources[index]
        words = None
        async with self._opened(source, step.profile.name) as fd, self._turns:
            self._budgets.check(page)
            where = source.sha256, fd, source.kind, page_in_source
            with metrics.stage("render", step.profile.name):
                async with self._counted(page):
                    image = await self._context.renderers.render(*where, step.profile.render, **self._limits)
                if step.text_layer is not TextLayer.IGNORE:
                    # Words that can't be extracted are not used. A crash may be temporary: it counts only where the page is not
                    # read without them.
                    with suppress(PermanentError, *([] if step.only_text_layer else [PageFaultError])):
                        async with self._counted(page):
                            words = await self._context.renderers.layer(*where, **self._limits)
        return RenderedPage(image, source.kind, words)

    @asynccontextmanager
    async def _counted(self, page: Page) -> AsyncIterator[None]:
        """Count a rendering inside the block that exceeds its time limit."""
        try:
            yield
        except PageFaultError as fault:
            if fault.reason is Reason.RENDER_DEADLINE:
                await self._budgets.spend(page)
            raise

    @asynccontextmanager
    async def _opened(self, source: Source, profile: str) -> AsyncIterator[int]:
        """Open a source, and check before and after the block that it is unchanged since its registration.

        In threads: a remote source is downloaded, a file that was touched is hashed again, the cache makes room.
        """
        opened = self._context.sources.opened(source)
        loop = asyncio.get_running_loop()
        with metrics.stage("fetch", profile):
            async with self._opening.setdefault(source.uri, asyncio.Lock()):
                fd = await loop.run_in_executor(self._context.source_threads, opened.__enter__)
        try:
            yield fd
        except BaseException as error:
            await self._context.store_retry.once(opened.__exit__, type(error), error, error.__traceback__)
            raise
        await self._context.store_retry.once(opened.__exit__, None, None, None)
