"""An engine of your own: gives each page to a program as PNG on stdin, and takes its stdout as the text.

OCR_COMMAND="tesseract - -" PYTHONPATH=examples ocrfleet run scans/ -o out/ --engine command_engine:CommandEngine
"""

from __future__ import annotations

import asyncio
import io
import os
import shlex
import shutil

from PIL import Image

from ocrfleet.errors import ConfigurationError, PageFaultError, Reason
from ocrfleet.profiles.profile import Profile
from ocrfleet.settings import Settings
from worker.engines.base import Recognition
from worker.imaging.page_image import PageImage


class CommandEngine:
    """Runs the program that OCR_COMMAND names, once for each page."""

    #: part of each page's result
    version = "command 1"
    #: pages that are recognised at the same time
    concurrency = 1
    #: pages that the engine prepares beyond those
    ahead = 0
    #: why the engine can't go on; None while it can
    broken: str | None = None
    #: a cancelled call ends its program
    interruptible = True

    def __init__(self, profile: Profile, settings: Settings) -> None:
        self._command: list[str] = []

    async def start(self) -> None:
        """Find the program. Raises ConfigurationError when there is none."""
        self._command = shlex.split(os.environ.get("OCR_COMMAND", ""))
        if not self._command or shutil.which(self._command[0]) is None:
            raise ConfigurationError("set OCR_COMMAND to a program that reads a PNG and prints its text")

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:
        """Return what the program prints for a page. Raises PageFaultError when it fails."""
        png = io.BytesIO()
        Image.fromarray(image.pixels).save(png, "PNG")
        program = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            output, _ = await program.communicate(png.getvalue())
        except asyncio.CancelledError:
            program.kill()
            await program.wait()
            raise
        if program.returncode:
            raise PageFaultError(Reason.ENGINE_FAILED, f"{self._command[0]} ended with {program.returncode}")
        return Recognition(text=output.decode(errors="replace").strip())

    async def stop(self) -> None:
        """Nothing is kept between pages."""
