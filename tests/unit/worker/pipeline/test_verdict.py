"""Verdict: a text is accepted unless a check rejects it; the first reason in order is reported."""

from __future__ import annotations

import asyncio
import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import Judgement, Render
from ocrfleet.records.pages import Block, Role
from ocrfleet.sandbox.sniff import SNIFF_BYTES, sniff
from tests.support.servers import ROOT
from tests.support.waiting import scaled
from worker.engines.base import Recognition
from worker.engines.repetition import LoopWatch
from worker.imaging.page_image import PageImage
from worker.imaging.print_detection import printed
from worker.parsers import Parsed
from worker.pipeline.verdict import judge
from worker.rendering.pool import RenderPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CORPUS = Path(os.environ.get("OCRFLEET_CORPUS", ROOT.parent / "shared" / "corpus"))
MANIFEST = CORPUS / "manifest.csv"
ROWS = list(csv.DictReader(MANIFEST.read_text(encoding="utf-8").splitlines())) if MANIFEST.exists() else []
TRUTHS = [row for row in ROWS if row["ground_truth"]]

LINE = "The ferry left at nine, as it did every day"
TEXT = "\n".join([LINE] * 20)
CYRILLIC = "\n".join(["Паром отошёл в девять часов, как и каждый день"] * 20)
STOPPED = Recognition(text="", finish_reason="stop", tokens=9)


def page(text: str, *, long_side: int = 1280) -> PageImage:
    """A page of A4 with a text of 11 points in its upper half."""
    scale = long_side / 842
    image = Image.new("RGB", (round(595 * scale), long_side), (250, 250, 250))
    font = ImageFont.load_default(11 * scale)
    ImageDraw.Draw(image).multiline_text(
        (80 * scale, 90 * scale), text, fill=(20, 20, 20), font=font, spacing=6 * scale
    )
    return PageImage(pixels=np.asarray(image).copy(), width_pt=595, height_pt=842)


FULL, NUMBERED = page(TEXT), page("17")


def grey(values: NDArray[np.floating[Any]]) -> PageImage:
    pixels = np.repeat(np.clip(values, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    return PageImage(pixels=pixels, width_pt=595, height_pt=842)


def noise(sigma: float, *, blur: float = 0, seed: int = 1) -> PageImage:
    grain = np.random.default_rng(seed).normal(0, 1, (1024, 724))
    grain = cv2.GaussianBlur(grain, (0, 0), blur) if blur else grain  # type: ignore[assignment]
    return grey(200 + sigma * grain / grain.std())


def stain() -> PageImage:
    """Round and soft at its edge."""
    y, x = np.mgrid[:1280, :905]
    return grey(245 - 130 / (1 + np.exp((np.hypot(y - 520, x - 400) - 90) / 6)))


def reason(
    parsed: Parsed | str,
    image: PageImage = FULL,
    *,
    recognition: Recognition = STOPPED,
    judgement: Judgement | None = None,
) -> Reason | None:
    parsed = parsed if isinstance(parsed, Parsed) else Parsed(text=parsed)
    doubt = judge(parsed, recognition, image, judgement or Judgement())
    return doubt and doubt.reason  # type: ignore[return-value]


def picture(*boxes: tuple[float, float, float, float]) -> Block:
    return Block(label="image", role=Role.FIGURE, boxes=boxes)


class TestEndedEarly:
    def test_text_that_ended_at_the_token_limit_is_truncated(self) -> None:
        cut = Recognition(text="", finish_reason="length", tokens=700)
        doubt = judge(Parsed(text=TEXT[:300]), cut, FULL, Judgement())

        assert doubt is not None
        assert doubt.reason is Reason.TRUNCATED
        assert "700 tokens" in doubt.detail

    def test_a_repetition_is_rejected_with_its_unit(self) -> None:
        looping = "and the sea was calm, " * 200
        ended = Recognition(text="", finish_reason="loop", tokens=700, loop=LoopWatch().feed(looping))
        doubt = judge(Parsed(text=looping), ended, FULL, Judgement())

        assert doubt is not None
        assert doubt.reason is Reason.REPETITION
        assert "the sea was calm" in doubt.detail

    def test_truncation_and_repetition_precede_other_reasons(self) -> None:
        # Given a text that is damaged, of garbage and invented as well
        loop = LoopWatch().feed("{" * 1000)
        parsed = Parsed(text="\N{REPLACEMENT CHARACTER}" * 900, damage="the list of cells breaks off")

        assert reason(parsed, NUMBERED, recognition=Recognition(text="", finish_reason="length")) is Reason.TRUNCATED
        assert (
            reason(parsed, NUMBERED, recognition=Recognition(text="", finish_reason="length", loop=loop))
            is Reason.REPETITION
        )

    def test_an_engine_that_does_not_generate_ends_nothing_early(self) -> None:
        assert reason(TEXT, recognition=Recognition(text=TEXT)) is None

    def test_unparsable_precedes_wrong_script_and_invented(self) -> None:
        garbage = CYRILLIC.replace(" ", "\N{REPLACEMENT CHARACTER}")

        assert reason(garbage, NUMBERED, judgement=Judgement(scripts=("LATIN",))) is Reason.UNPARSABLE

    def test_wrong_script_precedes_invented(self) -> None:
        assert reason(CYRILLIC, NUMBERED) is Reason.INVENTED
        assert reason(CYRILLIC, NUMBERED, judgement=Judgement(scripts=("LATIN",))) is Reason.WRONG_SCRIPT


class TestUnparsable:
    @pytest.mark.parametrize(
        "text",
        [
            TEXT.replace("e", "\N{REPLACEMENT CHARACTER}"),
            "\ue000\ue07a" * 100,
            "a\x00\x02b\x07" * 100,
            "%!?;@%~!`;" * 40,
        ],
        ids=["replaced", "private", "control", "signs"],
    )
    def test_garbage(self, text: str) -> None:
        assert reason(text) is Reason.UNPARSABLE

    def test_damage_found_by_the_parser_is_the_reason(self) -> None:
        doubt = judge(Parsed(text=TEXT, damage="the list of cells breaks off"), STOPPED, FULL, Judgement())

        assert doubt is not None
        assert (doubt.reason, doubt.detail) == (Reason.UNPARSABLE, "the list of cells breaks off")

    def test_characters_of_a_damaged_text_are_not_counted(self) -> None:
        # Given JSON, whose keys are in Latin letters, of an Arabic page
        parsed = Parsed(text='{"category": "Text", "bbox": [' * 20, damage="the list of cells breaks off")

        assert reason(parsed, judgement=Judgement(scripts=("ARABIC",))) is Reason.UNPARSABLE

    def test_a_few_signs_of_a_font_of_its_own_are_none(self) -> None:
        assert reason(TEXT + "\ue75d" * 8) is None

    def test_a_sign_that_cannot_be_read_beside_a_page_number_is_a_blemish(self) -> None:
        assert reason("17 \N{REPLACEMENT CHARACTER}", NUMBERED) is None
        assert reason("17 \N{REPLACEMENT CHARACTER}\ue000\x07", NUMBERED) is Reason.UNPARSABLE

    @pytest.mark.parametrize(
        "text",
        [
            "\N{BALLOT BOX} " * 200,
            "\N{MINUS SIGN}\t" * 200,
            "$$\\frac{a}{b} = \\sqrt{c^2 + d^2}$$\n" * 30,
            "\N{DITTO MARK} " * 200,
            "<tr><td></td><td>0</td></tr>" * 60,
            "Plate" + " ." * 90 + "\n" + "_" * 200,
        ],
        ids=["boxes to tick", "minus", "formulas", "ditto", "empty cells", "leaders"],
    )
    def test_forms_and_formulas_are_none(self, text: str) -> None:
        assert reason(text, NUMBERED) is None


class TestScript:
    def test_a_text_in_another_script_is_rejected(self) -> None:
        doubt = judge(Parsed(text=CYRILLIC), STOPPED, FULL, Judgement(scripts=("LATIN",)))

        assert doubt is not None
        assert doubt.reason is Reason.WRONG_SCRIPT
        assert doubt.detail == "0 of 740 letters are LATIN: most are CYRILLIC"

    def test_without_scripts_the_script_is_not_checked(self) -> None:
        assert reason(CYRILLIC) is None

    def test_more_than_half_of_the_letters_are_enough(self) -> None:
        assert reason(CYRILLIC + TEXT * 2, judgement=Judgement(scripts=("LATIN",))) is None
        assert reason(CYRILLIC + TEXT, judgement=Judgement(scripts=("CYRILLIC", "GREEK"))) is None

    def test_markup_has_no_script(self) -> None:
        table = "<table>" + '<tr><td class="figures">паром</td><td>&nbsp;</td></tr>' * 20 + "</table>\\textbf\\quad"

        assert reason(table, judgement=Judgement(scripts=("CYRILLIC",))) is None

    def test_letters_of_another_form_are_of_their_script(self) -> None:
        text = "ｆｕｌｌ ｗｉｄｔｈ ﬁﬂ ſſ 𝐛𝐨𝐥𝐝 " * 10  # noqa: RUF001 - that is what is tested

        assert reason(text, NUMBERED, judgement=Judgement(scripts=("LATIN",))) is None

    def test_few_letters_are_not_judged(self) -> None:
        assert reason("Паром", NUMBERED, judgement=Judgement(scripts=("LATIN",))) is None

    def test_words_that_mix_alphabets_are_rejected_without_scripts(self) -> None:
        mixed = TEXT.replace("e", "\N{CYRILLIC SMALL LETTER IE}")

        assert reason(mixed) is Reason.WRONG_SCRIPT

    def test_a_page_in_two_alphabets_does_not_mix_them(self) -> None:
        assert reason(f"{CYRILLIC}\n{TEXT}\n") is None

    def test_greek_in_formulas_and_latin_beside_ideographs_mix_nothing(self) -> None:
        assert reason("sinα cosβ Δx μm " * 40) is None  # noqa: RUF001 - Greek
        assert reason("第3章 PDF文書とOCRの処理 " * 40) is None


class TestInvented:
    @pytest.mark.parametrize("long_side", [512, 640, 1024, 1280, 1684, 2500])
    @pytest.mark.parametrize("mark", ["17", "Chapter the last"])
    def test_a_page_of_text_for_a_page_number(self, long_side: int, mark: str) -> None:
        doubt = judge(Parsed(text=TEXT), STOPPED, page(mark, long_side=long_side), Judgement())

        assert doubt is not None
        assert doubt.reason is Reason.INVENTED
        assert doubt.detail.startswith("660 letters and digits were written of a page with ink on 0.")

    @pytest.mark.parametrize("long_side", [512, 640, 1024, 1280, 1684, 2500])
    def test_a_page_of_text_for_a_page_of_text(self, long_side: int) -> None:
        assert reason(TEXT, page(TEXT, long_side=long_side)) is None

    @pytest.mark.parametrize("image", [noise(45), noise(12), stain()], ids=["noise", "grain", "stain"])
    def test_a_text_on_a_page_that_may_hide_a_paragraph_is_accepted(self, image: PageImage) -> None:
        assert reason(TEXT, image) is None

    def test_a_line_of_text_is_accepted_on_any_page(self) -> None:
        assert reason(LINE, NUMBERED) is None

    def test_faint_print_is_not_invented(self) -> None:
        # Given print that differs from its paper by a tenth
        faint = FULL.pixels.astype(np.float32) * 0.1 + 225
        image = PageImage(pixels=faint.astype(np.uint8), width_pt=595, height_pt=842)

        assert reason(TEXT, image) is None


class TestEmpty:
    @pytest.mark.parametrize("long_side", [512, 640, 1024, 1280, 1684, 2500])
    @pytest.mark.parametrize("text", ["", "212", "<table><tr><td></td></tr></table>"])
    def test_next_to_nothing_of_a_page_of_print(self, text: str, long_side: int) -> None:
        doubt = judge(Parsed(text=text), STOPPED, page(TEXT, long_side=long_side), Judgement())

        assert doubt is not None
        assert doubt.reason is Reason.EMPTY

    def test_a_tenth_of_a_page_is_something(self) -> None:
        assert reason(TEXT[:100]) is None

    def test_the_heading_of_a_page_is_not_all_of_it(self) -> None:
        assert reason("The harbour in winter") is Reason.EMPTY

    @pytest.mark.parametrize(
        "image",
        [
            noise(12),
            noise(45),
            noise(120),
            noise(30, blur=2),
            grey(np.tile(np.linspace(250, 60, 724), (1024, 1))),
            stain(),
        ],
        ids=["grain", "noise", "more noise", "blurred noise", "gradient", "stain"],
    )
    def test_nothing_of_a_page_without_print(self, image: PageImage) -> None:
        assert reason("", image) is None

    def test_marks_that_stand_in_rows_by_chance_are_no_print(self) -> None:
        # Given noise with some 50 marks in rows, of 3,000
        image = noise(30, blur=2, seed=23)
        seen = printed(image.pixels)
        marks = sum(row.marks for row in seen.rows) - seen.across
        assert marks >= 40

        # Then they are too small a share of it, however few are enough
        assert reason("", image, judgement=Judgement(fewest_letters=40)) is None
        assert reason("", image, judgement=Judgement(fewest_letters=40, least_in_rows=0)) is Reason.EMPTY

    @pytest.mark.parametrize("long_side", [1280, 2500])
    @pytest.mark.parametrize("word", ["Preface", "213", "To my mother"])
    def test_nothing_of_a_page_with_a_word(self, word: str, long_side: int) -> None:
        image = page(word, long_side=long_side)

        assert reason("", image) is Reason.EMPTY
        assert reason(word, image) is None

    def test_nothing_of_a_page_number(self) -> None:
        assert reason("", NUMBERED) is None

    def test_pictures_all_over_a_page_with_labels_have_nothing_to_read(self) -> None:
        image = page("\n".join([LINE] * 5))
        whole = picture((0, 0, 905, 1280))

        assert reason("", image) is Reason.EMPTY
        assert reason(Parsed(text="", blocks=(whole,)), image) is None
        assert reason(Parsed(text="", blocks=(picture(),)), image) is None

    def test_a_full_page_of_print_is_no_picture(self) -> None:
        assert reason(Parsed(text="", blocks=(picture((0, 0, 905, 1280)),))) is Reason.EMPTY

    def test_print_outside_of_the_pictures_is_to_be_read(self) -> None:
        # Given a picture in the lower half of the page, below the print
        below = picture((0, 900, 905, 1280))
        doubt = judge(Parsed(text="", blocks=(below,)), STOPPED, FULL, Judgement())

        assert doubt is not None
        assert doubt.reason is Reason.EMPTY
        assert doubt.detail.endswith("marks in rows outside of its pictures")


class TestThresholds:
    """They are the profile's: each one, moved beyond what it is compared with, turns the verdict."""

    @pytest.mark.parametrize(
        ("text", "image", "given_", "moved", "expected"),
        [
            (TEXT + "\ue75d" * 8, FULL, {}, {"most_garbage": 0.001}, Reason.UNPARSABLE),
            ("%!?;@a" * 40, NUMBERED, {}, {"least_readable": 0.3}, Reason.UNPARSABLE),
            (TEXT + CYRILLIC, FULL, {"scripts": ("LATIN",)}, {"least_in_scripts": 0.3}, None),
            ("Паром отошёл", NUMBERED, {"scripts": ("LATIN",)}, {"fewest_for_script": 5}, Reason.WRONG_SCRIPT),
            (TEXT + " n\u0435w" * 40, FULL, {}, {"most_mixed": 0.1}, Reason.WRONG_SCRIPT),
            (TEXT, NUMBERED, {}, {"most_on_a_square": 1000.0}, None),
            (TEXT, NUMBERED, {}, {"most_for_a_letter": 1000.0}, None),
            (TEXT, NUMBERED, {}, {"always_allowed": 1000}, None),
            ("x", FULL, {}, {"fewest_letters": 1000}, None),
            ("x", FULL, {}, {"least_in_rows": 0.99}, None),
            ("", page("Preface"), {}, {"fewest_letters_unread": 50}, None),
            (TEXT[:100], FULL, {}, {"letters_for_one": 2}, Reason.EMPTY),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) and value else "",
    )
    def test_a_threshold_that_is_moved_turns_the_verdict(
        self, text: str, image: PageImage, given_: dict[str, Any], moved: dict[str, Any], expected: Reason | None
    ) -> None:
        before = reason(text, image, judgement=Judgement(**given_))

        assert before is not expected
        assert expected is None or before is None
        assert reason(text, image, judgement=Judgement(**given_, **moved)) is expected

    def test_how_many_marks_a_picture_may_have_is_the_profile_s(self) -> None:
        whole = Parsed(text="", blocks=(picture((0, 0, 905, 1280)),))

        assert reason(whole) is Reason.EMPTY
        assert reason(whole, judgement=Judgement(fewest_letters_in_figures=1000)) is None


class TestCost:
    def test_print_is_not_looked_for_on_a_page_with_ink_enough_for_its_text(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unexpected(_: object) -> None:
            raise AssertionError

        monkeypatch.setattr("worker.pipeline.verdict.printed", unexpected)

        assert reason(TEXT) is None
        with pytest.raises(AssertionError):
            reason("17")


#: Images of one grey, of black and white, and of any.
SMALL = st.builds(
    lambda shape, seed, depth: grey(
        np.random.default_rng(seed).integers(0, depth, shape) * (255.0 / max(depth - 1, 1))
    ),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(0, 9),
    st.sampled_from([1, 2, 256]),
)


class TestAnything:
    @given(
        text=st.text(st.characters(), max_size=400) | st.text("a\u0430\ufffd<>&;\\|.{", min_size=200, max_size=900),
        damage=st.none() | st.text(min_size=1, max_size=9),
        scripts=st.sampled_from([(), ("LATIN",)]),
        image=SMALL,
        boxes=st.none() | st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 4), max_size=2),
    )
    @settings(max_examples=200, deadline=None)
    def test_any_text_on_any_small_page_has_a_verdict_or_none(
        self,
        text: str,
        damage: str | None,
        scripts: tuple[str, ...],
        image: PageImage,
        boxes: list[tuple[float, float, float, float]] | None,
    ) -> None:
        blocks = (Block(label="image", role=Role.FIGURE, boxes=tuple(boxes)),) if boxes is not None else ()

        parsed = Parsed(text=text, damage=damage, blocks=blocks)
        doubt = judge(parsed, STOPPED, image, Judgement(scripts=scripts, fewest_letters=1))

        assert doubt is None or (isinstance(doubt.reason, Reason) and doubt.detail)

    @pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3)])
    def test_images_too_small_to_tell_are_no_reason(self, shape: tuple[int, int]) -> None:
        image = PageImage(pixels=np.zeros((*shape, 3), np.uint8), width_pt=9, height_pt=9)

        assert reason("", image) is None
        assert reason(TEXT, image) in (None, Reason.INVENTED)


@pytest.fixture(scope="module")
def pool() -> Iterator[RenderPool]:
    pool = RenderPool(1, memory=256 << 20, max_pixels=2_500_000)
    yield pool
    pool.close()


class TestCorpus:
    """Ground truths of the corpus are accepted, and empty texts are not, except for joined handwriting."""

    @staticmethod
    def first_page(pool: RenderPool, name: str) -> PageImage:
        with (CORPUS / "files" / name).open("rb") as file:
            kind = sniff(file.read(SNIFF_BYTES))
            assert kind is not None
            render = Render(long_side=1684, max_pixels=2_500_000)
            return asyncio.run(pool.render(name, file.fileno(), kind, 0, render, deadline=scaled(60)))

    @staticmethod
    def truth(row: dict[str, str]) -> str:
        text = (CORPUS / row["ground_truth"]).read_text(encoding="utf-8")
        if row["ground_truth_kind"] == "facts":
            return "\n".join(json.loads(line)["text"] for line in text.splitlines())
        return text.partition("\f")[0]

    def test_there_are_truths(self) -> None:
        if not ROWS and os.environ.get("CI") != "true":
            pytest.skip("no corpus: set OCRFLEET_CORPUS to its folder")
        assert len(TRUTHS) >= 12

    @pytest.mark.parametrize("row", TRUTHS, ids=lambda row: Path(row["file"]).name)
    def test_ground_truth_is_accepted_and_empty_text_rejected(self, pool: RenderPool, row: dict[str, str]) -> None:
        name = Path(row["file"]).name
        image = self.first_page(pool, name)

        assert reason(self.truth(row), image) is None
        assert reason("", image) is Reason.EMPTY
        assert reason(self.truth(row), NUMBERED) is Reason.INVENTED

    @pytest.mark.skipif(not ROWS, reason="no corpus")
    def test_a_typewritten_page_is_print(self, pool: RenderPool) -> None:
        assert reason("", self.first_page(pool, "typewriter.png")) is Reason.EMPTY

    @pytest.mark.skipif(not ROWS, reason="no corpus")
    def test_a_photograph_has_nothing_to_read(self, pool: RenderPool) -> None:
        assert reason("", self.first_page(pool, "jpx.pdf")) is None


def test_a_doubt_that_a_profile_ignores_does_not_count_and_hides_no_other() -> None:
    cut = Recognition(text="", finish_reason="length", tokens=700)
    ignoring = Judgement(ignored=(Reason.TRUNCATED,))
    assert judge(Parsed(text=TEXT), cut, FULL, ignoring) is None
    doubt = judge(Parsed(text=TEXT, damage="the list of cells breaks off"), cut, FULL, ignoring)
    assert doubt is not None
    assert doubt.reason is Reason.UNPARSABLE
