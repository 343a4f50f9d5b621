"""Pages that carry a number in black and white squares, and an engine that reads it and misbehaves on request.

The engine runs in real worker processes (`--engine numbered:NumberedEngine` with this folder on PYTHONPATH). What it does
on which page stands in the JSON file that OCRFLEET_TEST_PLAN names: {"seconds": 0.01, "crash": [7], "hang": [8], ...}.
Pages in "wait" are read once the file "until" is there, those in "break" break the engine with all that it has in hand,
and after "limit" pages it may read no more.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ocrfleet.errors import ConfigurationError, FatalError, PageFaultError, Reason
from ocrfleet.records.pages import Line
from tests.support.waiting import FOREVER, scaled
from worker.engines.base import Recognition
from worker.engines.stream import LOOP, Transcript
from worker.imaging.page_image import PageImage

_BITS = 16
_SQUARE = 16


def draw(number: int) -> Image.Image:
    """Return a small page (256 x 256 pixels) with its number in the squares of the first row, least bit first."""
    page = Image.new("L", (_BITS * _SQUARE, _BITS * _SQUARE), 255)
    for bit in range(_BITS):
        if number >> bit & 1:
            page.paste(0, (bit * _SQUARE, 0, (bit + 1) * _SQUARE, _SQUARE))
    page.paste(0, (64, 128, 192, 144))  # a bar, so that page 0 is not blank
    return page


def read(image: PageImage) -> int:
    centres = np.arange(_BITS) * _SQUARE + _SQUARE // 2
    return sum(1 << bit for bit, x in enumerate(centres) if image.pixels[_SQUARE // 2, x, 0] < 128)


def write_book(path: Path, numbers: list[int]) -> Path:
    """Write a TIFF with one page for each number."""
    first, *rest = [draw(number) for number in numbers]
    first.save(path, save_all=True, append_images=rest, dpi=(72, 72))
    return path


class NumberedEngine:
    """The plan has the behaviour for each page."""

    version = "numbered 1"
    concurrency = 1
    ahead = 0
    broken = None
    interruptible = True

    def __init__(self, profile: object, settings: object) -> None:
        self._busy = self._read = 0
        self._broken = False

    async def start(self) -> None:
        plan = os.environ.get("OCRFLEET_TEST_PLAN")
        self._plan = json.loads(Path(plan).read_text()) if plan else {}
        self._log = self._plan.get("log")

    async def recognise(self, image: PageImage, profile: object) -> Recognition:
        if image.width != _BITS * _SQUARE:
            return Recognition(text="the canary")
        number = read(image)
        if self._busy and "overlaps" in self._plan:
            with Path(self._plan["overlaps"]).open("a") as out:
                out.write(f"{number}\n")
        self._busy += 1
        try:
            return await self._recognise(number)
        finally:
            self._busy -= 1

    async def _recognise(self, number: int) -> Recognition:
        if self._log:
            with Path(self._log).open("a") as out:
                out.write(f"{number}\n")
        if number in self._plan.get("crash", ()):
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self._plan.get("hang", ()):
            await asyncio.sleep(FOREVER)
        if number in self._plan.get("block", ()):
            time.sleep(FOREVER)
        if number in self._plan.get("fail", ()):
            raise PageFaultError(Reason.ENGINE_FAILED, "it said no")
        if number in self._plan.get("raise", ()):
            raise ZeroDivisionError
        await self._take_time(number)
        if number in self._plan.get("loop", ()):
            return _loop(number)
        text = f"page number {number}"
        return Recognition(text=text, lines=(Line(text=text, box=(64, 128, 192, 144), confidence=1.0),))

    async def _take_time(self, number: int) -> None:
        if self._read >= self._plan.get("limit", 1 << 16):
            raise ConfigurationError("it may read no more")
        self._read += 1
        self._broken |= number in self._plan.get("break", ())
        while number in self._plan.get("wait", ()) and not Path(self._plan["until"]).exists():
            await asyncio.sleep(scaled(0.02))
        if not self._broken:
            await asyncio.sleep(self._plan.get("seconds", 0.01))
        if self._broken:
            raise FatalError("it broke")

    async def stop(self) -> None:
        pass


def _loop(number: int) -> Recognition:
    transcript = Transcript()
    while transcript.loop is None:
        transcript.add(f"and page {number} was calm, ")
    return Recognition(text=transcript.text, finish_reason=LOOP, loop=transcript.loop)


class StubbornEngine(NumberedEngine):
    """An engine that hangs in its own thread, which can't be interrupted."""

    interruptible = False


class OtherEngine(NumberedEngine):
    """Another profile's."""


class WideEngine(NumberedEngine):
    """An engine with several slots that prefetches two more pages."""

    concurrency = 4
    ahead = 2


class BrokenEngine(NumberedEngine):
    """An engine that starts, and then fails each page immediately."""

    async def recognise(self, image: PageImage, profile: object) -> Recognition:
        raise FatalError("no memory on the device")
