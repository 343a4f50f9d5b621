"""Renders small images of pages, for the process that started this one: python -m worker.thumbnails.

Each line on stdin is a ThumbnailRequest, each line on stdout the ThumbnailAnswer to it. Pages are rendered in a sandbox.
Exit code 78: misconfigured.
"""

from __future__ import annotations

import asyncio
import base64
import io
import sys
from contextlib import closing

import PIL.Image
import structlog

from ocrfleet import keys, logs
from ocrfleet.errors import OcrfleetError
from ocrfleet.metrics.confinement import check_confinement
from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Manifest
from ocrfleet.records.thumbnails import ThumbnailAnswer, ThumbnailRequest
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import Sources
from ocrfleet.storage.open import open_store
from ocrfleet.storage.store import ObjectStore
from worker.misconfiguration import exits_when_misconfigured
from worker.rendering.pool import RenderPool

log = structlog.get_logger(__name__)

#: Print stays readable at a few hundred pixels, at a tenth of the size of a lossless image.
_QUALITY = 60
#: The most pixels of an image that is rendered: the largest `side` of a request, squared.
_MOST_PIXELS = 2000**2


class _Thumbnails:
    """Renders thumbnails from the sources of documents."""

    def __init__(self, settings: Settings, store: ObjectStore, pool: RenderPool) -> None:
        self._store = store
        self._sources = Sources(settings, store)
        self._pool = pool
        self._passwords = settings.passwords()
        self._deadline = settings.render_deadline
        self._manifest: Manifest | None = None

    def jpeg(self, request: ThumbnailRequest) -> bytes:
        """Return the JPEG of a page. Raises OcrfleetError."""
        if self._manifest is None or self._manifest.document != request.document:
            self._manifest = Manifest.from_bytes(self._store.get(keys.manifest(request.document)))
        index, page = self._manifest.locate(request.page)
        source = self._manifest.sources[index]
        with self._sources.opened(source) as fd:
            rendering = self._pool.render(
                source.sha256,
                fd,
                source.kind,
                page,
                Render(long_side=request.side, max_pixels=_MOST_PIXELS),
                passwords=self._passwords,
                deadline=self._deadline,
            )
            image = asyncio.run(rendering)
        out = io.BytesIO()
        PIL.Image.fromarray(image.pixels).save(out, "JPEG", quality=_QUALITY, optimize=True)
        return out.getvalue()


def main() -> None:
    """Answer requests until stdin ends."""
    with exits_when_misconfigured():
        settings = Settings()
        logs.configure(settings.log_level)
        check_confinement(settings)
    pool = RenderPool(1, memory=settings.render_memory_mb << 20, max_pixels=_MOST_PIXELS)
    with closing(pool):
        thumbnails: _Thumbnails | None = None
        for line in sys.stdin.buffer:
            request = ThumbnailRequest.from_bytes(line)
            try:
                if thumbnails is None:
                    with exits_when_misconfigured():
                        thumbnails = _Thumbnails(settings, open_store(settings), pool)
                answer = ThumbnailAnswer(jpeg=base64.b64encode(thumbnails.jpeg(request)).decode())
            except OcrfleetError as error:
                answer = ThumbnailAnswer(why=str(error))
            except Exception as error:
                log.exception("thumbnails.raised", document=request.document, page=request.page)
                answer = ThumbnailAnswer(why=f"{type(error).__name__}: {error}")
            sys.stdout.buffer.write(answer.to_bytes() + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
