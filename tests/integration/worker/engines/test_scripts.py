"""Pages in scripts that the default engine lacks fail with the script, or are read by Tesseract; other pages are unaffected."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.script_texts import LACKING, READ
from bench.scripts import page
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.profiles.scripts import SCRIPTS
from ocrfleet.settings import Settings
from tests.support.servers import lacking
from worker import engines
from worker.engines import tesseract
from worker.engines.base import Engine, Recognition
from worker.engines.script_reader import chosen
from worker.imaging.page_image import PageImage

FREE = Path("/usr/share/fonts/truetype/freefont/FreeSerif.ttf")
Read = Callable[[str, str], Recognition]


@pytest.fixture(scope="module")
def alone() -> Iterator[Read]:
    """Read drawn pages, on a machine without Tesseract."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        engine = started()
    yield lambda text, kind: read(engine, text, kind)
    asyncio.run(engine.stop())


@pytest.fixture(scope="module")
def helped() -> Iterator[Read]:
    """Read drawn pages, on a machine with Tesseract and its model of Hebrew."""
    if shutil.which("tesseract") is None or "heb" not in asyncio.run(tesseract.models()):
        lacking("tesseract-ocr-heb")
    engine = started()
    yield lambda text, kind: read(engine, text, kind)
    asyncio.run(engine.stop())


def started() -> Engine:
    engine = engines.create(RAPIDOCR, Settings())
    asyncio.run(engine.start())
    return engine


def read(engine: Engine, text: str, kind: str) -> Recognition:
    if not FREE.is_file():
        lacking("fonts-freefont-ttf")
    pixels = page(text, FREE, kind, FREE, seed=f"{text} {kind}")
    height, width = pixels.shape[:2]
    image = PageImage(pixels=np.ascontiguousarray(pixels), width_pt=width * 842 / 2500, height_pt=height * 842 / 2500)
    return asyncio.run(engine.recognise(image, RAPIDOCR))


@pytest.mark.parametrize("script", ["Hebrew", "Cyrillic", "Bengali", "Vietnamese"])
def test_a_script_that_is_lacking_is_named_with_the_package_that_reads_it(alone: Read, script: str) -> None:
    recognition = alone(LACKING[script], "large")
    assert recognition.lacking is not None
    assert f"lines are in {script}," in recognition.lacking
    assert f"apt install tesseract-ocr {SCRIPTS[script].package}" in recognition.lacking


def test_a_paragraph_among_others_is_found(alone: Read) -> None:
    recognition = alone(LACKING["Hebrew"], "mixed")
    assert recognition.lacking is not None
    assert "in Hebrew" in recognition.lacking
    assert "human beings are born free" in " ".join(recognition.text.split())  # readable lines are kept


@pytest.mark.parametrize("language", ["Polish", "Turkish"])
def test_what_the_engine_can_read_is_left_alone(alone: Read, language: str) -> None:
    assert alone(READ[language], "large").lacking is None


def test_tesseract_reads_a_page_by_itself_where_it_can(helped: Read) -> None:
    recognition = helped(LACKING["Hebrew"], "large")
    assert recognition.lacking is None
    assert recognition.read_by is not None
    assert (recognition.read_by.engine, recognition.read_by.model) == ("tesseract", "heb")
    assert len({"בני", "האדם", "חורין", "ושווים", "כולם"} & set(recognition.text.split())) >= 4


def test_tesseract_reads_the_lines_that_the_engine_lacks_and_no_others(helped: Read) -> None:
    recognition = helped(LACKING["Hebrew"], "mixed")
    assert recognition.lacking is None
    assert recognition.read_by is not None
    assert recognition.read_by.engine == "rapidocr+tesseract"
    words = " ".join(recognition.text.split())
    assert words.count("spirit of brotherhood") >= 2
    assert "האדם" in words.partition("brotherhood")[2]


def test_models_of_scripts_are_preferred_to_those_of_languages() -> None:
    cyrillic = SCRIPTS["Cyrillic"]
    assert chosen(cyrillic, {"eng", "rus", "ukr", "script/Cyrillic"}) == "script/Cyrillic"
    assert chosen(cyrillic, {"rus", "Cyrillic"}) == "Cyrillic"
    assert chosen(cyrillic, {"eng", "ukr", "rus"}) == "rus+ukr"
    assert chosen(cyrillic, {"eng"}) is None
