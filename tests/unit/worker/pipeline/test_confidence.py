"""The confidence in a text, by what speaks for it and against it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.pages import Block, Line, Role
from worker.engines.base import Recognition, Score
from worker.imaging.page_image import PageImage
from worker.parsers import Parsed
from worker.pipeline.confidence import agreement_of, chance, gather, worst_region

TEXT = (
    "The harbour master wrote in the ledger",
    "that seven barges had left before dawn,",
    "carrying timber, salt and winter apples.",
    "Nobody on the northern quay remembered",
    "a colder November than that of 1874,",
    "when the river froze below the bridge",
    "and the ferryman walked home at noon.",
)
GIBBERISH = (
    "Tle hxrbeun rnastr wrcte n tbe ledqer",
    "tbat sevn bzrges lad 1eft bef0re dawu,",
    "carryng t1mber, salr aud w1nter applcs.",
    "Nobcdy ou tle nortlern qnay rememlered",
    "z colder Novemler tlan tlat of l87A,",
    "wlen tle rlver frcze belcw tle brldge",
    "aud tle ferrynan wzlked lome zt noou.",
)


@pytest.fixture(scope="module")
def page() -> PageImage:
    sheet = Image.new("RGB", (1240, 900), "white")
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(TEXT):
        draw.text((100, 100 + 80 * row), line, fill="black", font=ImageFont.load_default(44))
    return PageImage(pixels=np.asarray(sheet).copy(), width_pt=595.0, height_pt=432.0)


def read(texts: tuple[str, ...], confidence: float) -> Recognition:
    """Return these lines where the page has its own, each with this confidence."""
    lines = tuple(
        Line(text=text, box=(95.0, 95.0 + 80 * row, 1150.0, 155.0 + 80 * row), confidence=confidence)
        for row, text in enumerate(texts)
    )
    return Recognition(text="\n".join(texts), lines=lines)


def chance_of(
    recognition: Recognition, page: PageImage, engine: str = "rapidocr", agreement: float | None = None
) -> float:
    return chance(gather(Parsed(text=recognition.text), recognition, page), engine, agreement)


def test_a_clean_text_is_sure(page: PageImage) -> None:
    assert chance_of(read(TEXT, 0.995), page) >= RAPIDOCR.review_below


def test_gibberish_that_the_engine_is_rather_sure_of_is_not(page: PageImage) -> None:
    assert chance_of(read(GIBBERISH, 0.8), page) < RAPIDOCR.review_below / 2


def test_a_text_that_leaves_out_half_of_the_page_is_not(page: PageImage) -> None:
    assert chance_of(read(TEXT[:3], 0.995), page) < RAPIDOCR.review_below


def test_what_the_engine_says_counts_wherever_it_says_it(page: PageImage) -> None:
    chances = [chance_of(read(TEXT, score), page) for score in (0.7, 0.9, 0.97, 0.995)]
    assert chances == sorted(chances)


def test_a_second_reading_raises_it_or_lowers_it(page: PageImage) -> None:
    lower, higher = (chance_of(read(TEXT, 0.97), page, agreement=share) for share in (0.2, 1.0))
    assert lower < higher


def test_a_generated_text_is_as_sure_as_its_tokens(page: PageImage) -> None:
    text = "\n".join(TEXT)
    surer, doubtful = (
        chance_of(Recognition(text=text, scores=(Score(16, len(text), probability),)), page, "vllm")
        for probability in (0.99, 0.6)
    )
    assert doubtful < surer


def test_a_page_without_a_text_and_without_ink_has_one_too() -> None:
    empty = PageImage(pixels=np.full((64, 64, 3), 255, np.uint8), width_pt=46.0, height_pt=46.0)
    assert 0 <= chance_of(Recognition(text=""), empty) <= 1


class TestWorstRegion:
    def test_is_the_block_whose_lines_are_the_least_sure(self) -> None:
        lines = (
            Line(text="Surely read", box=(0, 0, 100, 20), confidence=0.99),
            Line(text="hardly so", box=(0, 100, 100, 120), confidence=0.71),
            Line(text="nor this one", box=(0, 125, 100, 145), confidence=0.69),
        )
        blocks = (
            Block(label="text", role=Role.TEXT, boxes=((0, 0, 110, 30),), markdown="Surely read"),
            Block(label="text", role=Role.TEXT, boxes=((0, 95, 110, 150),), markdown="hardly so nor this one"),
        )

        region = worst_region(Parsed(text="", blocks=blocks), Recognition(text="", lines=lines))

        assert region is not None
        assert region.box == (0, 95, 110, 150)
        assert region.confidence == pytest.approx(0.7, abs=0.01)

    def test_is_a_line_where_there_are_no_blocks(self) -> None:
        lines = (
            Line(text="Surely", box=(0, 0, 9, 2), confidence=0.99),
            Line(text="hardly", box=(0, 5, 9, 7), confidence=0.5),
        )
        region = worst_region(Parsed(text=""), Recognition(text="", lines=lines))
        assert region is not None
        assert region.box == (0, 5, 9, 7)

    def test_is_the_block_with_the_least_likely_tokens(self) -> None:
        text = "# A title\n\nand a doubtful paragraph"
        blocks = (
            Block(label="title", role=Role.TITLE, boxes=((0, 0, 100, 10),), markdown="# A title"),
            Block(label="text", role=Role.TEXT, boxes=((0, 20, 100, 30),), markdown="and a doubtful paragraph"),
        )
        scores = (Score(4, 11, 0.99), Score(9, 24, 0.6))

        region = worst_region(Parsed(text=text, blocks=blocks), Recognition(text=text, scores=scores))

        assert region is not None
        assert region.box == (0, 20, 100, 30)
        assert region.confidence == pytest.approx(0.6)

    def test_is_none_where_the_engine_says_nothing_of_it(self) -> None:
        assert worst_region(Parsed(text="some text"), Recognition(text="some text")) is None


class TestAgreement:
    def test_does_not_mind_order_capitals_and_punctuation(self) -> None:
        other = "; ".join(reversed(TEXT)).upper()
        assert agreement_of("\n".join(TEXT), other) > 0.85

    def test_of_another_text_is_next_to_none(self) -> None:
        assert (
            agreement_of("\n".join(TEXT), "It was the first day of the fair, and every inn of the town was full.") < 0.1
        )

    def test_of_an_invented_half_is_about_a_half(self) -> None:
        invented = " ".join(
            [*TEXT[:4], "Then came a storm over the mountains which nobody had foreseen, and drowned the cattle."]
        )
        assert 0.4 < agreement_of(invented, " ".join(TEXT)) < 0.75

    @pytest.mark.parametrize(
        ("text", "other", "share"), [("", "anything", 1.0), ("…", "", 1.0), ("ab", "ab", 1.0), ("ab", "cd", 0.0)]
    )
    def test_of_hardly_any_text(self, text: str, other: str, share: float) -> None:
        assert agreement_of(text, other) == share
