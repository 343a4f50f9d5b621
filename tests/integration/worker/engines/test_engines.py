"""The contract of all engines on a CPU, and the properties of each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.errors import ConfigurationError, PageFaultError, Reason
from ocrfleet.profiles.profile import RAPIDOCR, TESSERACT, Profile
from ocrfleet.settings import Settings
from tests.support.engine_contract import PARAGRAPHS, EngineContract, Use, blank, crowded, page_image, printed
from tests.support.servers import lacking
from worker import engines
from worker.engines.base import Engine, Recognition

T = TypeVar("T")


def need_tesseract() -> None:
    if shutil.which("tesseract") is None:
        lacking("tesseract")


@pytest.fixture(params=[RAPIDOCR, TESSERACT], ids=lambda profile: profile.name)
def profile(request: pytest.FixtureRequest) -> Profile:
    chosen: Profile = request.param
    if chosen is TESSERACT:
        need_tesseract()
    return chosen


def with_engine(profile: Profile, use: Callable[[Engine], Awaitable[T]]) -> T:
    async def main() -> T:
        engine = engines.create(profile, Settings())
        await engine.start()
        try:
            return await use(engine)
        finally:
            await engine.stop()
            await engine.stop()  # may be called twice

    return asyncio.run(main())


class TestCpuEngines(EngineContract):
    @pytest.fixture
    def use(self, profile: Profile) -> Use:
        return lambda function: with_engine(profile, function)

    def test_reads_text_in_lines_and_paragraphs(self, profile: Profile) -> None:
        recognition = with_engine(profile, lambda engine: engine.recognise(printed(), profile))

        assert recognition.text == "\n\n".join("\n".join(paragraph) for paragraph in PARAGRAPHS)
        assert [line.text for line in recognition.lines] == [text for paragraph in PARAGRAPHS for text in paragraph]
        for line in recognition.lines:
            x0, y0, x1, y1 = line.box
            assert 100 < x0 < 130
            assert 550 < x1 < 700
            assert 20 < y1 - y0 < 60
            assert line.confidence is not None
            assert 0.7 < line.confidence <= 1
        assert [line.box[1] for line in recognition.lines] == sorted(line.box[1] for line in recognition.lines)

    def test_words_stand_in_their_lines(self, profile: Profile) -> None:
        recognition = with_engine(profile, lambda engine: engine.recognise(printed(), profile))

        assert [(word.line, word.text) for word in recognition.words] == [
            (number, text) for number, line in enumerate(recognition.lines) for text in line.text.split()
        ]
        for before, word in pairwise(recognition.words):
            x0, y0, x1, y1 = recognition.lines[word.line].box
            assert x0 - 1 <= word.box[0] < word.box[2] <= x1 + 1
            assert y0 - 1 <= word.box[1] < word.box[3] <= y1 + 1
            assert before.line != word.line or before.box[2] < word.box[0]
            assert word.confidence is not None
            assert 0.5 < word.confidence <= 1

    def test_a_blank_page_has_no_text(self, profile: Profile) -> None:
        assert with_engine(profile, lambda engine: engine.recognise(blank(), profile)) == Recognition(text="")

    def test_a_cancelled_call_leaves_no_process(self, profile: Profile) -> None:
        async def cancel(engine: Engine) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await engine.recognise(crowded(), profile)
            assert running_tesseracts() == []

        with_engine(profile, cancel)


class TestRapidOcr:
    @pytest.fixture
    def no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("it went to the network")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)

    @pytest.mark.usefixtures("no_network")
    def test_nothing_is_downloaded_and_nothing_is_printed(self, capfd: pytest.CaptureFixture[str]) -> None:
        async def both(engine: Engine) -> None:
            await engine.recognise(printed(), RAPIDOCR)
            await engine.recognise(blank(), RAPIDOCR)

        with_engine(RAPIDOCR, both)

        assert capfd.readouterr() == ("", "")

    def test_another_version_is_refused(self) -> None:
        other = RAPIDOCR.model_copy(update={"revision": "rapidocr-3.9.0"})

        with pytest.raises(ConfigurationError, match=r"pip install rapidocr==3\.9\.0"):
            asyncio.run(engines.create(other, Settings()).start())

    def test_a_model_outside_the_wheel_is_refused(self) -> None:
        other = RAPIDOCR.model_copy(update={"model": "PP-OCRv6-server"})

        with pytest.raises(ConfigurationError, match="PP-OCRv6-server is not in RapidOCR's wheel"):
            asyncio.run(engines.create(other, Settings()).start())

    def test_a_line_drawn_across_a_gutter_is_cut(self) -> None:
        image = Image.new("RGB", (1600, 900), "white")
        draw, font = ImageDraw.Draw(image), ImageFont.load_default(28)
        for row in range(18):
            # A gutter of one letter's width, as LaTeX sets it: the detector reaches over it in some of the rows.
            draw.text((60, 40 + 44 * row), f"left column row {row:02} with text to its end", fill="black", font=font)
            end = draw.textlength(f"left column row {row:02} with text to its end", font=font)
            draw.text((60 + end + 30, 40 + 44 * row), f"right column row {row:02} goes on", fill="black", font=font)

        text = with_engine(RAPIDOCR, lambda engine: engine.recognise(page_image(image), RAPIDOCR)).text

        rows = [row for row in text.split("\n") if row]
        assert [row.split()[0] for row in rows] == ["left"] * 18 + ["right"] * 18


class TestTesseract:
    @pytest.fixture(autouse=True)
    def _needed(self) -> None:
        need_tesseract()

    def test_a_missing_language_is_refused_with_what_to_install(self) -> None:
        other = TESSERACT.model_copy(update={"language": "eng+xyz_abc"})

        with pytest.raises(ConfigurationError, match="apt install tesseract-ocr-xyz-abc"):
            asyncio.run(engines.create(other, Settings()).start())

    def test_a_missing_script_is_refused_with_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))

        with pytest.raises(ConfigurationError, match="apt install tesseract-ocr-script-frak"):
            asyncio.run(engines.create(TESSERACT.model_copy(update={"language": "script/Fraktur"}), Settings()).start())

    def test_a_missing_program_is_refused_with_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(ConfigurationError, match="apt install tesseract-ocr"):
            asyncio.run(engines.create(TESSERACT, Settings()).start())

    @pytest.mark.usefixtures("failing")
    def test_a_failing_program_fails_the_page(self) -> None:
        async def main() -> None:
            await engines.create(TESSERACT, Settings()).recognise(printed(), TESSERACT)

        with pytest.raises(PageFaultError, match="the last word") as caught:
            asyncio.run(main())
        assert caught.value.reason is Reason.ENGINE_FAILED

    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        program = tmp_path / "tesseract"
        program.write_text("#!/bin/sh\necho first >&2\necho the last word >&2\nexit 3\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


class TestCreate:
    def test_an_engine_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="abacus"):
            engines.create(RAPIDOCR.model_copy(update={"engine": "abacus"}), Settings())


def running_tesseracts() -> list[int]:
    return [child.pid for child in children() if child.name() == "tesseract"]


def children() -> Iterator[psutil.Process]:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.name()
            yield child
