"""A text is believed unless something speaks against it, and then the strongest doubt is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.errors import Reason
from ocrfleet.jobs import Block, Role
from ocrfleet.profiles import Judgement
from worker.engines.base import PageImage, Recognition
from worker.judge import judge
from worker.loops import LoopWatch
from worker.parsers import Parsed

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


def reason(
    parsed: Parsed | str,
    image: PageImage = FULL,
    *,
    recognition: Recognition = STOPPED,
    judgement: Judgement | None = None,
) -> Reason | None:
    parsed = parsed if isinstance(parsed, Parsed) else Parsed(text=parsed)
    doubt = judge(parsed, recognition, image, judgement or Judgement())
    return doubt and doubt.reason


def picture(*boxes: tuple[float, float, float, float]) -> Block:
    return Block(label="image", role=Role.FIGURE, boxes=boxes)


class TestEndedEarly:
    def test_what_stopped_at_the_limit_is_truncated(self) -> None:
        cut = Recognition(text="", finish_reason="length", tokens=700)
        doubt = judge(Parsed(text=TEXT[:300]), cut, FULL, Judgement())

        assert doubt is not None
        assert doubt.reason is Reason.TRUNCATED
        assert "700 tokens" in doubt.detail

    def test_a_loop_is_told_with_what_it_repeats(self) -> None:
        looping = "and the sea was calm, " * 200
        ended = Recognition(text="", finish_reason="loop", tokens=700, loop=LoopWatch().feed(looping))
        doubt = judge(Parsed(text=looping), ended, FULL, Judgement())

        assert doubt is not None
        assert doubt.reason is Reason.REPETITION
        assert "the sea was calm" in doubt.detail

    def test_what_ended_it_comes_before_what_is_wrong_with_it(self) -> None:
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

    def test_a_parser_says_what_is_wrong(self) -> None:
        doubt = judge(Parsed(text=TEXT, damage="the list of cells breaks off"), STOPPED, FULL, Judgement())

        assert doubt is not None
        assert (doubt.reason, doubt.detail) == (Reason.UNPARSABLE, "the list of cells breaks off")

    def test_what_is_counted_in_a_damaged_text_means_nothing(self) -> None:
        # Given JSON, whose keys are in Latin letters, of an Arabic page
        parsed = Parsed(text='{"category": "Text", "bbox": [' * 20, damage="the list of cells breaks off")

        assert reason(parsed, judgement=Judgement(scripts=("ARABIC",))) is Reason.UNPARSABLE

    def test_a_few_signs_of_a_font_of_its_own_are_none(self) -> None:
        assert reason(TEXT + "\ue75d" * 8) is None

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
    def test_a_text_in_another_script_than_was_told(self) -> None:
        doubt = judge(Parsed(text=CYRILLIC), STOPPED, FULL, Judgement(scripts=("LATIN",)))

        assert doubt is not None
        assert doubt.reason is Reason.WRONG_SCRIPT
        assert doubt.detail == "0 of 740 letters are LATIN: most are CYRILLIC"

    def test_nothing_is_said_where_nothing_was_told(self) -> None:
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

    def test_words_that_mix_alphabets_are_seen_without_being_told(self) -> None:
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

    def test_a_line_is_allowed_whatever_is_on_the_page(self) -> None:
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


class TestAnything:
    @given(
        text=st.text(max_size=600), damage=st.none() | st.text(max_size=9), scripts=st.sampled_from([(), ("LATIN",)])
    )
    @settings(max_examples=150, deadline=None)
    def test_it_never_fails(self, text: str, damage: str | None, scripts: tuple[str, ...]) -> None:
        assert reason(Parsed(text=text, damage=damage), NUMBERED, judgement=Judgement(scripts=scripts)) in (
            None,
            *Reason,
        )

    @pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3)])
    def test_images_too_small_to_tell_are_no_reason(self, shape: tuple[int, int]) -> None:
        image = PageImage(pixels=np.zeros((*shape, 3), np.uint8), width_pt=9, height_pt=9)

        assert reason("", image) is None
