"""The real vLLM engine, which some numbered pages kill: OCRFLEET_TEST_PLAN names them under `kill`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil

from ocrfleet.profiles.profile import Profile
from tests.support.fakes import numbered
from tests.support.waiting import scaled
from worker.engines.base import Recognition
from worker.engines.vllm.engine import VllmEngine
from worker.imaging.page_image import PageImage


def engine_processes(name: str) -> list[psutil.Process]:
    """The processes that vLLM started for this one: `EngineCore`, `Worker`."""
    return [child for child in psutil.Process().children(recursive=True) if child.name().startswith(f"VLLM::{name}")]


class KillingVllmEngine(VllmEngine):
    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:
        plan = json.loads(Path(os.environ["OCRFLEET_TEST_PLAN"]).read_text())
        number = numbered.read(image) if image.width == image.height else None
        if number is not None:  # the self-test has no number
            with Path(plan["log"]).open("a") as out:
                out.write(f"{number}\n")
        if number in plan["kill"]:
            await asyncio.sleep(scaled(1))  # by then, the other current pages are in the engine
            self._kill()
        return await super().recognise(image, profile)

    def _kill(self) -> None:
        for process in engine_processes("EngineCor"):
            process.send_signal(signal.SIGKILL)
