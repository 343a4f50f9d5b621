"""The default engine finds all the text on a page: sparse, long or rotated."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pymupdf
import pytest
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.documents import Kind
from ocrfleet.settings import Settings
from tests.support.servers import ROOT
from tests.support.waiting import scaled
from worker import engines
from worker.engines.base import Recognition
from worker.rendering.pool import RenderPool

CASES = Path(os.environ.get("OCRFLEET_CASES", ROOT.parent / "shared" / "cases"))
WORDS = ("salt", "engine", "doctor", "harbour", "market", "silver", "apple", "river", "ferry", "bridge")

Read = Callable[[Path, Kind], Recognition]


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    """Render a file's first page and read it, as a worker does."""
    engine = engines.create(RAPIDOCR, Settings())
    asyncio.run(engine.start())
    with closing(RenderPool(1, memory=1 << 30, max_pixels=RAPIDOCR.render.max_pixels)) as pool:

        async def once(path: Path, kind: Kind) -> Recognition:
            fd = os.open(path, os.O_RDONLY)
            try:
                image = await pool.render(str(path), fd, kind, 0, RAPIDOCR.render, deadline=scaled(120))
            finally:
                os.close(fd)
            return await engine.recognise(image, RAPIDOCR)

        yield lambda path, kind: asyncio.run(once(path, kind))
    asyncio.run(engine.stop())


def case(name: str) -> Path:
    path = CASES / name
    if not path.is_file():
        pytest.skip("no cases: set OCRFLEET_CASES to their folder")
    return path


def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def a4(*texts: tuple[float, float, float, str], dpi: int = 200) -> Image.Image:
    """A bilevel page with texts at (x, y) points in a size of points."""
    scale = dpi / 72
    sheet = Image.new("L", (round(595 * scale), round(842 * scale)), 255)
    for x, y, points, text in texts:
        ImageDraw.Draw(sheet).text((x * scale, y * scale), text, fill=0, font=font(points * scale))
    return sheet.convert("1")


def saved(image: Image.Image, folder: Path, dpi: int = 200) -> Path:
    path = folder / "page.png"
    image.save(path, dpi=(dpi, dpi))
    return path


def numbers(text: str) -> list[str]:
    return re.findall(r"\b\d{3}\b", text)


# ---- sparse pages


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("sparse-folio.png", "- 213 -"),
        ("sparse-folio-top.png", "213"),
        ("sparse-shelfmark.png", "Ms. 1447 fol. 12r"),
    ],
)
def test_one_line_on_a_page_is_read(read: Read, name: str, right: str) -> None:
    assert read(case(name), Kind.PNG).text == right


@pytest.mark.parametrize(
    "texts",
    [
        [(290, 780, 10, "247")],
        [(250, 120, 24, "Preface")],
        [(60, 60, 9, "London"), (480, 760, 9, "1873")],
        [(250, 300, 48, "FINIS")],
        [(30, 400, 7, "Plate"), (290, 800, 8, "XIV")],
    ],
    ids=lambda texts: " ".join(text for *_, text in texts),
)
def test_a_few_words_anywhere_are_read(
    read: Read, tmp_path: Path, texts: list[tuple[float, float, float, str]]
) -> None:
    found = read(saved(a4(*texts), tmp_path), Kind.PNG).text.split()

    assert sorted(found) == sorted(text for *_, text in texts)


def test_dirt_is_no_text(read: Read, tmp_path: Path) -> None:
    page = np.full((2339, 1654), 255, np.uint8)
    chance = np.random.default_rng(3)
    for y, x in chance.integers(20, 1600, (150, 2)):
        page[y : y + chance.integers(1, 6), x : x + chance.integers(1, 6)] = 0

    assert read(saved(Image.fromarray(page), tmp_path), Kind.PNG).text == ""


# ---- pages of any shape


@pytest.mark.parametrize(("name", "count"), [("strip-600x14840.png", 370), ("strip-16000x90.png", 78)])
def test_a_strip_is_read_whole_and_nothing_twice(read: Read, name: str, count: int) -> None:
    # (the manifest says 000 to 079 of the second; the picture ends behind 077)
    assert numbers(read(case(name), Kind.PNG).text) == [f"{number:03}" for number in range(count)]


def test_a_strip_of_a_pdf_is_read(read: Read, tmp_path: Path) -> None:
    # Given a receipt of 234 x 6000 points
    document = pymupdf.open()
    strip = document.new_page(width=234, height=6000)
    for number in range(60):
        strip.insert_text((12, 60 + 98 * number), f"{number:03} {WORDS[number % 10]}", fontsize=10)
    document.save(tmp_path / "strip.pdf")

    assert numbers(read(tmp_path / "strip.pdf", Kind.PDF).text) == [f"{number:03}" for number in range(60)]


def test_small_print_on_a_poster_is_read(read: Read, tmp_path: Path) -> None:
    # Given an A1 poster with a title, and captions of 9 points in its corners
    document = pymupdf.open()
    poster = document.new_page(width=1684, height=2384)
    poster.insert_text((300, 500), "HARBOUR", fontsize=220)
    places = [(40, 60), (1500, 60), (40, 2350), (1500, 2350), (800, 1200)]
    for number, place in enumerate(places):
        poster.insert_text(place, f"{number:03} {WORDS[number]}", fontsize=9)
    document.save(tmp_path / "poster.pdf")

    text = read(tmp_path / "poster.pdf", Kind.PDF).text

    assert sorted(numbers(text)) == ["000", "001", "002", "003", "004"]
    assert text.count("HARBOUR") == 1


# ---- rotated parts of a page


def test_a_table_that_lies_sideways_on_an_upright_page(read: Read) -> None:
    text = read(case("sideways-table.png"), Kind.PNG).text

    rows = [line.split() for line in text.splitlines()]
    assert ["Apples", "12", "4.50"] in rows
    assert ["Timber", "30", "19.00"] in rows
    assert "and the ferryman walked home at noon." in text


@pytest.mark.parametrize("quarters", [1, 3])
def test_sideways_text_is_read_in_both_rotations(read: Read, tmp_path: Path, quarters: int) -> None:
    # Given an upright paragraph, and a note in the margin that runs up, or down
    lines = ["The keeper wrote this down", "as he wrote everything down", "every evening of the winter"]
    sheet = a4(*((150, 100 + 20 * number, 12, line) for number, line in enumerate(lines * 4)))
    note = a4((20, 20, 12, "Received in the harbour office")).crop((0, 0, 700, 140)).rotate(90 * quarters, expand=True)
    sheet.paste(note, (60, 700))

    recognition = read(saved(sheet, tmp_path), Kind.PNG)

    assert "Received in the harbour office" in recognition.text
    assert recognition.text.count("everything") == 4
    box = next(line.box for line in recognition.lines if "harbour" in line.text)
    assert box[0] > 60
    assert box[2] < 250
    assert box[3] - box[1] > 2 * (box[2] - box[0])
    # And its words are below each other, in reading direction
    words = [word for word in recognition.words if recognition.lines[word.line].box == box]
    assert [word.text for word in words] == ["Received", "in", "the", "harbour", "office"]
    for before, word in pairwise(words):
        above, below = (before, word) if quarters == 3 else (word, before)
        assert above.box[3] < below.box[1]
        assert box[0] - 1 <= word.box[0] < word.box[2] <= box[2] + 1
