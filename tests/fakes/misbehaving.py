"""Pages of print that carry a number, and an engine that does with each what the plan says, attempt by attempt.

The plan's "acts" are, by number, what becomes of the first attempt at the page, of the second, …; the last one stays:
{"acts": {"3": ["loop", "well"]}}. Whoever makes an attempt, it is counted in the plan's "log" (see numbered.py).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from numbered import NumberedEngine, draw
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.errors import PageFaultError, Reason
from ocrfleet.profiles import Profile
from worker.engines.base import Recognition
from worker.engines.transcript import LOOP, Transcript

PRINT = "\n".join(
    (
        "The ferry left at nine, as it did every day",
        "but on Sundays, with the mail, six sheep and",
        "nobody else on board.",
    )
    * 3
)
LOOPING = "and the sea was calm, "
LIMIT = 400
INVENTED = "\n".join(f"It was in the year {year} that the harbour froze over again." for year in range(1600, 1900))
#: for each act: what is written of it, and what the engine calls its end
WRITTEN = {
    "well": (PRINT, "stop"),
    "truncate": (PRINT[: len(PRINT) // 2], "length"),
    "truncate early": (PRINT[:20], "length"),
    "invent": (INVENTED, "stop"),
    "stay silent": ("", "stop"),
    "write garbage": ("\ufffd\ue000\x01" * 60, "stop"),
    "write another script": ("Паром отошёл в девять часов, как и каждый день.", "stop"),
}


def draw_print(number: int, text: str = PRINT) -> Image.Image:
    """Return a page (256 x 256 pixels) with its number in squares above some print."""
    page = draw(number)
    page.paste(255, (0, 64, 256, 256))
    ImageDraw.Draw(page).multiline_text((6, 70), text, fill=0, font=ImageFont.load_default(10), spacing=4)
    return page


def write_prints(path: Path, numbers: list[int]) -> Path:
    """Write a TIFF with one page of print for each number."""
    first, *rest = [draw_print(number) for number in numbers]
    first.save(path, save_all=True, append_images=rest, dpi=(72, 72))
    return path


class MisbehavingEngine(NumberedEngine):
    """What it does with which page stands in the plan."""

    async def recognise(self, image: object, profile: object) -> Recognition:
        self._profile = profile
        return await super().recognise(image, profile)

    async def _recognise(self, number: int) -> Recognition:
        assert isinstance(self._profile, Profile)
        assert self._profile.sampling is not None
        limit = self._profile.sampling.max_tokens
        await super()._recognise(number)
        attempts = Path(self._log).read_text().split().count(str(number))
        acts = self._plan["acts"].get(str(number), ["well"])
        act = acts[min(attempts, len(acts)) - 1]
        if self._plan.get("crash_at", {}).get(str(number)) == attempts:
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "fail":
            raise PageFaultError(Reason.ENGINE_FAILED, "it said no")
        if act != "loop":
            text, end = WRITTEN[act]
            return Recognition(text=f"page number {number}\n\n{text}" if text else "", finish_reason=end, tokens=9)
        transcript = Transcript()
        for tokens in range(1, limit + 1):
            transcript.add(LOOPING)
            if transcript.loop is not None:
                return Recognition(text=transcript.text, finish_reason=LOOP, tokens=tokens, loop=transcript.loop)
        raise AssertionError("nobody stopped it")


class OtherMisbehavingEngine(MisbehavingEngine):
    """Another profile's."""
