"""Thumbnails of pages, rendered in a sandboxed child process (worker/thumbnails.py)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ocrfleet.errors import ConfigurationError
from ocrfleet.records.thumbnails import ThumbnailAnswer, ThumbnailRequest
from producer.processes.line_process import LineProcess

if TYPE_CHECKING:
    from ocrfleet.settings import Settings


class Thumbnailer:
    """Renders thumbnails of pages in the store of `settings`. Not thread-safe. `close` ends its process."""

    def __init__(self, settings: Settings, *, log_file: Path | None = None) -> None:
        environment = {**os.environ, "OCRFLEET_STORE": settings.store}
        if settings.password_file is not None:
            environment["OCRFLEET_PASSWORD_FILE"] = str(settings.password_file.absolute())
        self._process = LineProcess("worker.thumbnails", environment, log_file=log_file)

    def thumbnail(self, document: str, page: int, *, side: int) -> ThumbnailAnswer:
        """Return a JPEG of a page with a longer side of `side` pixels, or the reason why it failed."""
        try:
            answer = self._process.ask(ThumbnailRequest(document=document, page=page, side=side).to_bytes())
        except ConfigurationError as error:
            return ThumbnailAnswer(why=str(error))
        if answer is None:
            return ThumbnailAnswer(why=f"the process that renders thumbnails ended with {self._process.exit_code}")
        return ThumbnailAnswer.from_bytes(answer)

    def close(self) -> None:
        self._process.close()
