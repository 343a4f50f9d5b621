"""Self-test: a worker must read the self-test page before it takes any job: one that failed every page quickly would fail documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.errors import FatalError
from worker.engines.base import Engine
from worker.imaging.page_image import PageImage

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile

TEXT = "The ferry left at nine"
#: Pixels: a line of 20 points at 200 dpi.
_SIZE, _FONT_SIZE = (800, 200), 56


def draw_canary() -> PageImage:
    """Return the self-test page: one line of large print."""
    page = Image.new("RGB", _SIZE, "white")
    ImageDraw.Draw(page).text((40, 60), TEXT, fill="black", font=ImageFont.load_default(_FONT_SIZE))
    return PageImage(pixels=np.asarray(page).copy(), width_pt=288.0, height_pt=72.0)


async def self_test(engine: Engine, profile: Profile) -> None:
    """Read the self-test page with the engine. Raises FatalError if that fails, or if the words of the profile are missing."""
    canary = profile.canary
    if canary.prompt is not None:
        profile = profile.model_copy(update={"prompt": canary.prompt})
    text = await _recognise(engine, profile)
    lower = text.lower()
    missing = [word for word in canary.words if word not in lower]
    if missing:
        raise FatalError(f"the engine misreads the self-test page: {text[:200]!r} lacks {', '.join(missing)}")
    if canary.twice:
        again = await _recognise(engine, profile)
        if not text.strip() or text != again:
            raise FatalError(f"the engine reads the self-test page as {text[:200]!r}, and then as {again[:200]!r}")


async def _recognise(engine: Engine, profile: Profile) -> str:
    try:
        return (await engine.recognise(draw_canary(), profile)).text
    except FatalError:
        raise
    except Exception as error:
        raise FatalError(f"the engine fails on the self-test page: {error or type(error).__name__}") from error
