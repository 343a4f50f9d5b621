"""Pages of print that carry a number, and an engine that does with each what the plan says, attempt by attempt.

The plan's "acts" are, by number, what becomes of the first attempt at the page, of the second, …; the last one stays:
{"acts": {"3": ["loop", "well"]}}. Whoever makes an attempt, it is counted in the plan's "log" (see numbered.py). An attempt
that is to "take long" takes the plan's "long" seconds, and reads well then.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
from pathlib import Path

import pymupdf
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.errors import PageFaultError, PermanentError, Reason
from ocrfleet.profiles.profile import Profile
from tests.support.fakes.numbered import NumberedEngine, draw
from worker.engines.base import Recognition
from worker.engines.stream import LOOP, Transcript
from worker.imaging.page_image import PageImage

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
    "take long": (PRINT, "stop"),
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


#: Print that a PDF has as text as well, with words enough to be trusted.
TEXT_LAYER = (
    "The archive was moved to the new house in the spring, and with it went the letters that nobody had read since they "
    "were written. Some of them had been opened by people who were looking for money; others were still closed. When the "
    "work began, it was not known how many there would be, or whether they should be kept at all. After three years the "
    "last box had been emptied, and every letter was in its own folder, with the name of whoever had sent it."
)


def write_pdf(path: Path, texts: dict[int, str | None]) -> Path:
    """Write a PDF with a page (256 x 256 points) for each number, in squares above its own text; above print that is none for None.

    Rendered at 256 pixels, each is as an engine of the tests wants to see it.
    """
    with pymupdf.open() as document:
        for number, text in texts.items():
            page = document.new_page(width=256, height=256)
            drawn = draw_print(number) if text is None else draw(number).crop((0, 0, 256, 64))
            picture = io.BytesIO()
            drawn.save(picture, "PNG")
            page.insert_image((0, 0, drawn.width, drawn.height), stream=picture.getvalue())
            left = page.insert_textbox((16, 80, 240, 250), text or "", fontsize=8, fontname="tiro", lineheight=1.3)
            assert left >= 0, "the text does not fit on the page"
        document.save(path)
    return path


class MisbehavingEngine(NumberedEngine):
    """The plan has the behaviour for each page."""

    async def recognise(self, image: PageImage, profile: object) -> Recognition:
        self._profile = profile
        return await super().recognise(image, profile)

    async def _recognise(self, number: int) -> Recognition:
        assert isinstance(self._profile, Profile)
        assert self._profile.sampling is not None
        limit = self._profile.sampling.max_tokens
        await super()._recognise(number)
        attempts = Path(self._log).read_text().split().count(str(number))  # type: ignore[arg-type]
        acts = self._plan["acts"].get(str(number), ["well"])
        act = acts[min(attempts, len(acts)) - 1]
        if self._plan.get("crash_at", {}).get(str(number)) == attempts:
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "take long":
            await asyncio.sleep(self._plan["long"])
        if act == "refuse":
            raise PermanentError(Reason.ENGINE_FAILED, "it will never read that")
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


class StubbornMisbehavingEngine(MisbehavingEngine):
    """An engine that hangs in its own thread, which can't be interrupted."""

    interruptible = False


#: Where FigureEngine says that a page has a picture, in pixels of a page of 256 x 256.
FIGURE_BOX = (26, 77, 231, 231)
_CAPTIONED = """<|ref|>title<|/ref|><|det|>[[0, 0, 999, 62]]<|/det|>
# Plate {number}

<|ref|>image<|/ref|><|det|>[[100, 300, 900, 900]]<|/det|>
<|ref|>image_caption<|/ref|><|det|>[[100, 910, 900, 960]]<|/det|>
<center>The harbour [in {number}] at night</center>

<|ref|>text<|/ref|><|det|>[[100, 965, 900, 999]]<|/det|>
No ship came in."""


def draw_plate(number: int) -> Image.Image:
    """Return a page (256 x 256 pixels) with its number in squares above a picture, which no other number has."""
    page = draw(number)
    x0, y0, x1, y1 = FIGURE_BOX
    tile = 8 + number
    for y in range(y0, y1):
        for x in range(x0, x1):
            page.putpixel((x, y), 60 if (x // tile + y // tile) % 2 else 200)
    return page


class FigureEngine(NumberedEngine):
    """An engine that returns the output of DeepSeek-OCR for a picture with a caption on every page."""

    async def _recognise(self, number: int) -> Recognition:
        await super()._recognise(number)
        return Recognition(text=_CAPTIONED.format(number=number), finish_reason="stop", tokens=90)


class PrintEngine(NumberedEngine):
    """An engine that returns the same text for every page: "print" of the plan, or a default."""

    async def recognise(self, image: PageImage, profile: object) -> Recognition:
        return Recognition(text=self._plan.get("print", PRINT))
