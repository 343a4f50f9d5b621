"""Contract of engines: one suite, which the tests of each engine inherit.

A subclass has the fixtures `profile` and `use`: `use(function)` starts an engine of that profile (or takes one that runs),
awaits the function with it on the engine's event loop, and returns what it returns.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.profiles.profile import Profile
from tests.support.waiting import scaled
from worker.engines.base import Engine, Recognition, Score
from worker.imaging.page_image import PageImage

Use = Callable[[Callable[[Engine], Awaitable[Any]]], Any]

PARAGRAPHS = (
    ("The quick brown fox jumps over", "the lazy dog near the river bank."),
    ("Another paragraph follows here,", "with numbers 1234 and a full stop."),
)


def page_image(image: Image.Image) -> PageImage:
    pixels = np.asarray(image.convert("RGB"))
    return PageImage(pixels=pixels, width_pt=image.width * 72 / 150, height_pt=image.height * 72 / 150)


def printed(paragraphs: tuple[tuple[str, ...], ...] = PARAGRAPHS) -> PageImage:
    image = Image.new("RGB", (1000, 700), "white")
    draw, font, y = ImageDraw.Draw(image), ImageFont.load_default(32), 80
    for paragraph in paragraphs:
        for text in paragraph:
            draw.text((120, y), text, fill="black", font=font)
            y += 48
        y += 80
    return page_image(image)


def blank() -> PageImage:
    return page_image(Image.new("RGB", (1000, 700), "white"))


def crowded() -> PageImage:
    """Return a page that takes any engine some time."""
    image = Image.new("RGB", (2000, 1000), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(26)
    for row in range(25):
        draw.text((60, 40 + 38 * row), f"{row} " + "sphinx of black quartz judge my vow " * 4, fill="black", font=font)
    return page_image(image)


def mean(scores: Sequence[Score]) -> float:
    """Return the mean logarithm of the probabilities of the tokens; 0 without any."""
    return sum(score.tokens * math.log(score.probability) for score in scores) / (
        sum(score.tokens for score in scores) or 1
    )


class EngineContract:
    #: maximum share of the time of a page for which an engine may block the event loop continuously
    longest_hold = 0.5

    def test_the_same_page_gives_the_same_text(self, use: Use, profile: Profile) -> None:
        async def twice(engine: Engine) -> tuple[Recognition, Recognition]:
            return await engine.recognise(printed(), profile), await engine.recognise(printed(), profile)

        first, second = use(twice)
        # (scores belong to the pieces in which a text comes, which differ from one stream to the next)
        assert replace(first, scores=()) == replace(second, scores=())
        assert mean(first.scores) == pytest.approx(mean(second.scores), abs=0.01)
        assert first.text.strip()

    def test_pages_that_are_read_at_once_are_not_mixed_up(self, use: Use, profile: Profile) -> None:
        # Given the texts of two pages, each read alone
        async def alone_and_together(engine: Engine) -> tuple[list[str], list[str]]:
            pages = [printed(), printed((("Entirely other words",),))]
            alone = [(await engine.recognise(page, profile)).text for page in pages]
            # When the engine gets more pages at once than it has slots
            many = [pages[number % 2] for number in range(min(engine.concurrency + 2, 16))]
            together = await asyncio.gather(*(engine.recognise(page, profile) for page in many))
            return alone, [recognition.text for recognition in together]

        alone, together = use(alone_and_together)
        # Then each page has its own text, the same as before
        assert alone[0] != alone[1]
        assert together == [alone[number % 2] for number in range(len(together))]

    def test_the_event_loop_is_not_blocked_while_a_page_is_read(self, use: Use, profile: Profile) -> None:
        async def held_up(engine: Engine) -> float:
            page, loop = crowded(), asyncio.get_running_loop()
            begun = last = loop.time()
            longest = 0.0
            reading = asyncio.create_task(engine.recognise(page, profile))
            while not reading.done():
                await asyncio.sleep(scaled(0.005))
                longest, last = max(longest, loop.time() - last), loop.time()
            await reading
            return longest / (last - begun)

        # The best of three: a busy machine also blocks it
        assert any(use(held_up) < self.longest_hold for _ in range(3))

    def test_a_cancelled_call_leaves_it_usable(self, use: Use, profile: Profile) -> None:
        async def cancel_and_read(engine: Engine) -> tuple[Recognition, Recognition]:
            before = await engine.recognise(printed(), profile)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await engine.recognise(crowded(), profile)
            return before, await engine.recognise(printed(), profile)

        before, after = use(cancel_and_read)
        assert before == after

    def test_the_engine_has_a_name_and_a_number_of_simultaneous_pages(self, use: Use, profile: Profile) -> None:
        async def said(engine: Engine) -> tuple[str, int, int, bool]:
            return engine.version, engine.concurrency, engine.ahead, engine.interruptible

        version, concurrency, ahead, interruptible = use(said)
        assert version.startswith(f"{profile.engine} ")
        assert concurrency >= 1
        assert ahead >= 0
        assert interruptible in {True, False}

    def test_a_generating_engine_returns_tokens_and_finish_reason(self, use: Use, profile: Profile) -> None:
        async def read(engine: Engine) -> Recognition:
            return await engine.recognise(printed(), profile)

        recognition = use(read)
        if profile.sampling is None:
            assert (recognition.tokens, recognition.finish_reason) == (None, None)
        else:
            assert recognition.finish_reason in {"stop", "length"}
            assert recognition.tokens is not None
            assert 0 < recognition.tokens <= profile.sampling.max_tokens
