"""Audit: a second engine reads a sample of the pages and every doubted one, so that a text that is not on its page is noticed.

A model that writes can write fluently what is nowhere on the page; neither its own probabilities nor the words' looks tell. A
second engine of another kind does not invent the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import structlog

from ocrfleet.errors import OcrfleetError
from ocrfleet.metrics import definitions
from ocrfleet.profiles.profile import RAPIDOCR, TESSERACT
from ocrfleet.records.pages import Audit
from worker import engines
from worker.pipeline.confidence import agreement_of

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from worker.engines.base import Engine
    from worker.imaging.page_image import PageImage
    from worker.pipeline.page import Page

log = structlog.get_logger(__name__)

#: Two readings that agree less are of different texts. Measured by bench/confidence.py: 0.43 at least for pages that were read
#: right or with a CER below 0.1, mostly 0.9 and more; 0.28 at most for the text of another page.
LEAST_AGREEMENT = 0.35


class Auditor:
    """A second engine, and the choice of the pages that it reads."""

    def __init__(self, profile: Profile, settings: Settings) -> None:
        self._share = settings.audit
        self._audited = profile.name
        self._profile = TESSERACT if profile.engine == RAPIDOCR.engine else RAPIDOCR
        self._engine: Engine | None = engines.create(self._profile, settings) if settings.audit else None
        self._turn = asyncio.Semaphore(self._engine.concurrency if self._engine is not None else 1)

    async def start(self) -> None:
        """Load the second engine, if pages are to be audited. Raises ConfigurationError when it can't be loaded."""
        if self._engine is not None:
            await self._engine.start()

    async def stop(self) -> None:
        if self._engine is not None:
            await self._engine.stop()

    def wants(self, page: Page, engine: str, *, doubted: bool) -> bool:
        """Say whether the page, which `engine` read, is to be audited: the same pages of a document in each run."""
        if self._engine is None or engine == self._profile.engine:
            return False
        number = int.from_bytes(hashlib.sha256(f"{page.job.document}/{page.number}".encode()).digest()[:8])
        return doubted or number < self._share * 2**64

    async def read(self, image: PageImage, text: str) -> Audit | None:
        """Let the second engine read a page, and compare the text of the first. None when it fails or hangs."""
        engine = self._engine
        if engine is None:
            return None
        try:
            async with self._turn, asyncio.timeout(self._profile.page_deadline):
                other = (await engine.recognise(image, self._profile)).text
        except (OcrfleetError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not engine.interruptible:
                self._engine = None  # it hangs, and each further page would wait for it
            log.warning("audit.failed", engine=engine.version, error=str(error) or "it hangs")
            self._count("failed")
            return None
        agreement = await asyncio.to_thread(agreement_of, text, other)
        agrees = agreement >= LEAST_AGREEMENT
        self._count("agreed" if agrees else "disagreed")
        return Audit(engine=engine.version, agreement=round(agreement, 4), agrees=agrees)

    def _count(self, outcome: str) -> None:
        definitions.PAGE_AUDITS.labels(outcome, self._audited).inc()
