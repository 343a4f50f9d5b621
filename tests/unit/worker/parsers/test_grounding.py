"""The parser of layout tags: Markdown and blocks from any output, without evaluating it."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocrfleet.profiles.profile import Parser
from ocrfleet.records.pages import Block, PageResult, PageStatus, Role
from tests.support.growth import assert_grows_linearly
from tests.support.published_outputs import DEEPSEEK_END as END
from tests.support.published_outputs import DEEPSEEK_MARKDOWN, DEEPSEEK_TEXT
from tests.support.published_outputs import DEEPSEEK_TAGS as TAGS
from worker.parsers import Parsed
from worker.parsers import parse as parse_any
from worker.parsers.grounding import LABEL_LENGTH, MAX_BOXES, ROLES, parse

#: one pixel is one step of the model's coordinates
SIDE = 999


def parsed(text: str) -> Parsed:
    return parse(text, width_px=SIDE, height_px=SIDE)


def read(text: str) -> tuple[str, list[Block]]:
    """Return the page's text, and its blocks but for the text that is in none."""
    page = parsed(text)
    return page.text, [block for block in page.blocks if block != outside(block.markdown)]


def outside(text: str) -> Block:
    return Block(label="", role=Role.TEXT, markdown=text)


def block(label: str, text: str = "", *, box: str = "[[1, 2, 30, 40]]") -> str:
    return f"<|ref|>{label}<|/ref|><|det|>{box}<|/det|>\n{text}"


def texts(blocks: list[Block]) -> list[tuple[str, str]]:
    return [(one.label, one.markdown) for one in blocks]


class TestBlocks:
    def test_a_page(self) -> None:
        page = parse(
            "<|ref|>title<|/ref|><|det|>[[111, 50, 888, 90]]<|/det|>\n# On tides  \n\n"
            "<|ref|>text<|/ref|><|det|>[[111, 120, 888, 300], [0, 0, 999, 999]]<|/det|>\nThe moon *pulls*.\nTwice a day.\n\n"
            f"<|ref|>table<|/ref|><|det|>[[10.5,400,20,500]]<|/det|>\n<table><tr><td>4 m</td></tr></table>{END}",
            width_px=1998,
            height_px=999,
        )

        assert page.text == "# On tides\n\nThe moon *pulls*.\nTwice a day.\n\n<table><tr><td>4 m</td></tr></table>"
        assert page.blocks == (
            Block(label="title", role=Role.TITLE, boxes=((222, 50, 1776, 90),), markdown="# On tides"),
            Block(
                label="text",
                role=Role.TEXT,
                boxes=((222, 120, 1776, 300), (0, 0, 1998, 999)),
                markdown="The moon *pulls*.\nTwice a day.",
            ),
            Block(
                label="table",
                role=Role.TABLE,
                boxes=((21, 400, 40, 500),),
                markdown="<table><tr><td>4 m</td></tr></table>",
            ),
        )
        assert page.damage is None

    def test_boxes_are_rounded_to_a_tenth_of_a_pixel(self) -> None:
        page = parse(block("text", "a", box="[[1, 1, 500, 998]]"), width_px=1190, height_px=1684)

        assert page.blocks[0].boxes == ((1.2, 1.7, 595.6, 1682.3),)

    def test_no_output(self) -> None:
        assert read("") == read(END) == ("", [])

    def test_text_before_the_first_tag_is_a_block_without_a_label(self) -> None:
        page = parsed("Stray words. " + block("text", "Words."))

        assert page.text == "Stray words.\n\nWords."
        assert page.blocks == (
            outside("Stray words."),
            Block(label="text", role=Role.TEXT, boxes=((1, 2, 30, 40),), markdown="Words."),
        )

    def test_a_figure_has_a_block_and_no_text(self) -> None:
        markdown, blocks = read(block("image") + block("image_caption", "Fig. 1"))

        assert markdown == "Fig. 1"
        assert texts(blocks) == [("image", ""), ("image_caption", "Fig. 1")]
        assert blocks[0].boxes == ((1, 2, 30, 40),)

    def test_tags_within_a_sentence_begin_a_block_all_the_same(self) -> None:
        markdown, blocks = read("See " + block("text", "the moon") + block("marginalia", "and the sun"))

        assert markdown == "See\n\nthe moon\n\nand the sun"
        assert texts(blocks) == [("text", "the moon"), ("marginalia", "and the sun")]

    def test_labels_are_tidied(self) -> None:
        _, blocks = read(block(" \n\tsub_title ", "a") + block(" margin_note", "b") + block(" ", "c"))

        assert texts(blocks) == [("sub_title", "a"), ("margin_note", "b"), ("", "c")]


class TestBoxes:
    @pytest.mark.parametrize(
        "box",
        [
            "",
            "[]",
            "[[]]",
            "none",
            "[[a, b, c, d]]",
            "[[1, 2, 3]]",
            "[[1, 2, 3, 4, 5]]",
            "[[1, 2, 3, 1000]]",
            "[[1, 2, 999.1, 4]]",
            "[[-1, 2, 3, 4]]",
            "[[30, 2, 3, 4]]",
            "[[3, 2, 3, 4]]",
            "[[1, 4, 3, 4]]",
            "[[1, 2, 3, 999.1]]",
            "[[1e2, 2, 300, 4]]",
            "[[nan, 2, 300, 4]]",
            "[[0x1, 2, 300, 4]]",
            "[[1_0, 2, 300, 4]]",
            "[[٣, 4, 50, 60]]",
            "[[1, 2, 3, 4",
            "1, 2, 3, 4",
            "__import__('os').abort()",
        ],
    )
    def test_invalid_coordinates_are_left_out_and_their_block_kept(self, box: str) -> None:
        markdown, blocks = read(block("text", "Words.", box=box))

        assert markdown == "Words."
        assert blocks == [Block(label="text", role=Role.TEXT, markdown="Words.")]

    def test_the_other_boxes_of_the_block_stay(self) -> None:
        _, blocks = read(block("text", "a", box="[[1, 2, 3, 4], [9, 9, 1, 1], [5,6,7,8], oh, [1, 2]]"))

        assert blocks[0].boxes == ((1, 2, 3, 4), (5, 6, 7, 8))

    @pytest.mark.parametrize("box", ["[1, 2, 3, 4]", "[[[1, 2, 3, 4]]]", " [ [1 ,2,\n3,4 ] ] "])
    def test_brackets_may_differ(self, box: str) -> None:
        assert read(block("text", "a", box=box))[1][0].boxes == ((1, 2, 3, 4),)

    def test_a_block_has_no_more_boxes_than_a_page_can_want(self) -> None:
        _, blocks = read(block("text", "a", box=f"[{'[1, 2, 3, 4], ' * (MAX_BOXES + 50)}]"))

        assert len(blocks[0].boxes) == MAX_BOXES


class TestDamage:
    @pytest.mark.parametrize(
        "remnant",
        [
            "<|ref|>", "<|ref|> sub_ti", "<|ref|>text", "<|r", "<|ref|>text<|/re", "<|", "<|/det", "<|grounding|", END[:-1], END[:2],
        ],
    )  # fmt: skip
    def test_a_tag_that_was_cut_off_is_lost_and_nothing_before_it(self, remnant: str) -> None:
        markdown, blocks = read(block("text", "Words.") + remnant)

        assert markdown == "Words."
        assert texts(blocks) == [("text", "Words.")]

    @pytest.mark.parametrize(
        ("remnant", "boxes"),
        [
            ("<|/ref|>", ()),
            ("<|/ref|><|de", ()),
            ("<|/ref|><|det|>", ()),
            ("<|/ref|><|det|>[[1, 2", ()),
            ("<|/ref|><|det|>[[1, 2, 3, 4], [5, 6", ((1, 2, 3, 4),)),
            ("<|/ref|><|det|>[[1, 2, 3, 4]]<|/", ((1, 2, 3, 4),)),
        ],
    )
    def test_a_block_that_was_cut_off_keeps_what_was_whole(
        self, remnant: str, boxes: tuple[tuple[float, ...], ...]
    ) -> None:
        markdown, blocks = read(block("text", "Words.") + "<|ref|>image" + remnant)

        assert markdown == "Words."
        assert texts(blocks) == [("text", "Words."), ("image", "")]
        assert blocks[1].boxes == boxes

    @pytest.mark.parametrize(
        "tag", ["<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>", END, "<|det|>[[1, 2, 3, 4]]<|/det|>"]
    )
    def test_a_stray_tag_is_removed_and_the_text_around_it_stays(self, tag: str) -> None:
        markdown, blocks = read(block("text", f"One {tag}two."))

        assert markdown == "One two."
        assert texts(blocks) == [("text", "One two.")]

    def test_a_nested_label_is_text_but_for_the_innermost(self) -> None:
        markdown, blocks = read("<|ref|>outer <|ref|>text<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>inner<|/ref|>")

        assert markdown == "outer\n\ninner"
        assert texts(blocks) == [("text", "inner")]

    def test_a_label_without_boxes(self) -> None:
        markdown, blocks = read("<|ref|>title<|/ref|># Tides\n<|ref|>text<|/ref|>The <|ref|>moon<|/ref|> pulls.")

        assert markdown == "# Tides\n\nThe moon pulls."
        assert texts(blocks) == [("title", "# Tides"), ("text", "The moon pulls.")]

    def test_words_between_a_label_and_its_boxes_are_text(self) -> None:
        markdown, blocks = read("<|ref|>text<|/ref|>The moon<|det|>[[1, 2, 3, 4]]<|/det|> pulls.")

        assert markdown == "The moon pulls."
        assert blocks == [Block(label="text", role=Role.TEXT, markdown="The moon pulls.")]

    def test_a_forgotten_end_of_boxes(self) -> None:
        markdown, blocks = read("<|ref|>text<|/ref|><|det|>[[1, 2, 3, 4]]\n12 moons.\n" + block("text", "Words."))

        assert markdown == "12 moons.\n\nWords."
        assert [one.boxes for one in blocks] == [((1, 2, 3, 4),), ((1, 2, 30, 40),)]

    def test_a_forgotten_end_of_a_label_loses_no_page(self) -> None:
        long = "All that the page says from here on, as the model never ended the label that it began."

        assert read(block("text", "Words.") + f"<|ref|>{long}")[0] == f"Words.\n\n{long}"
        assert read("<|ref|>text\nA moon.")[0] == "text\nA moon."

    @pytest.mark.parametrize("end", ["A moon.", "texts", "Text", "sub title", "x"])
    def test_a_few_words_at_the_end_are_no_beginning_of_a_label(self, end: str) -> None:
        page = parsed(block("text", "Words.") + f"<|ref|>{end}")

        assert page.text == f"Words.\n\n{end}"
        assert page.blocks[1] == outside(end)

    def test_removed_tags_leave_no_new_ones(self) -> None:
        markdown, blocks = read("<|re<|grounding|>f|><|ground<|/det|>ing|>a<|/r<|/ref|>ef|>")

        assert not any(tag in markdown for tag in TAGS)
        assert "a" in markdown
        assert blocks == []
        assert read("a <|re<|r<|/det|>ef|>f|> b")[0] == "a <|re f|> b"

    def test_half_a_character_can_be_stored_all_the_same(self) -> None:
        page = parse_any(Parser.GROUNDING, block("te\ud800xt", "Wo\udfffrds."), width_px=SIDE, height_px=SIDE)
        result = PageResult(
            page=1, status=PageStatus.DONE, profile="p", engine="e", model="m", revision="r", text=page.text,
            blocks=page.blocks,
        )  # fmt: skip

        assert PageResult.from_bytes(result.to_bytes()).text == "te?xt\nWo?rds."


class TestTextAsLabel:
    """Asked with "OCR this image", the model writes the text itself where a label belongs, and nothing after it."""

    def test_the_label_is_the_text(self) -> None:
        long = "Spring tides follow the new moon,  and neap tides follow its first and last quarters."
        assert len(long) > LABEL_LENGTH

        markdown, blocks = read(block("Of tides") + block(long) + block("image"))

        assert markdown == f"Of tides\n\n{long}"
        assert texts(blocks) == [("text", "Of tides"), ("text", long), ("image", "")]
        assert all(one.boxes for one in blocks)

    def test_a_stray_line_after_the_last_one_takes_nothing_away(self) -> None:
        long = "Spring tides follow the new moon,  and neap tides follow its first and last quarters."

        markdown, blocks = read(block("Of tides") + block(long) + "And a stray line.")

        assert markdown == f"Of tides\n\n{long}\nAnd a stray line."
        assert texts(blocks) == [("text", "Of tides"), ("text", f"{long}\nAnd a stray line.")]

    def test_whatever_other_blocks_have(self) -> None:
        markdown, blocks = read(block("Of tides") + block("text", "Words.") + block("moons") + block("image"))

        assert markdown == "Of tides\n\nWords.\n\nmoons"
        assert texts(blocks) == [("text", "Of tides"), ("text", "Words."), ("text", "moons"), ("image", "")]

    @pytest.mark.parametrize("label", ["Tides", "of tides", "1921", "tide.", "m" * (LABEL_LENGTH + 1), "潮", "a\n b"])
    def test_an_invalid_label_becomes_text(self, label: str) -> None:
        assert texts(read(block(label, "Words."))[1]) == [("text", f"{label}\nWords.")]

    def test_the_last_line_may_be_cut_off(self) -> None:
        assert read(block("Of tides") + "<|ref|>and of moo")[0] == "Of tides\n\nand of moo"

    def test_a_line_whose_boxes_are_missing_is_not_lost(self) -> None:
        assert read(block("Of tides") + "<|ref|>and of<|/ref|>" + block("moons"))[0] == "Of tides\n\nand of\n\nmoons"
        assert read(block("text", "Of tides") + "<|ref|>and of<|/ref|>")[0] == "Of tides\n\nand of"

    def test_an_empty_label_is_no_text(self) -> None:
        assert read(block("  ")) == ("", [Block(label="", boxes=((1, 2, 30, 40),))])


class TestStrippedTags:
    """Some services leave special tokens out of what they send: a block then begins with a line `label[[…]]`."""

    def test_a_page(self) -> None:
        markdown, blocks = read(
            "title[[52, 82, 320, 109]]\n# On tides\n\ntext[[52, 120, 900, 300], [52, 310, 900.5, 400]]\nThe moon *pulls*."
            "\nTwice.\n\nimage[[1,2,30,40]]  \r\n\nimage_caption[[1, 50, 30, 60]]\n<center>Fig. 1</center>"
        )

        assert markdown == "# On tides\n\nThe moon *pulls*.\nTwice.\n\n<center>Fig. 1</center>"
        assert blocks == [
            Block(label="title", role=Role.TITLE, boxes=((52, 82, 320, 109),), markdown="# On tides"),
            Block(
                label="text",
                role=Role.TEXT,
                boxes=((52, 120, 900, 300), (52, 310, 900.5, 400)),
                markdown="The moon *pulls*.\nTwice.",
            ),
            Block(label="image", role=Role.FIGURE, boxes=((1, 2, 30, 40),), markdown=""),
            Block(
                label="image_caption", role=Role.CAPTION, boxes=((1, 50, 30, 60),), markdown="<center>Fig. 1</center>"
            ),
        ]

    @pytest.mark.parametrize("label", sorted(ROLES))
    def test_every_layout_label(self, label: str) -> None:
        assert texts(read(f"{label}[[1, 2, 30, 40]]\nWords.")[1]) == [(label, "Words.")]

    def test_a_box_that_is_none_is_left_out_and_its_block_is_not(self) -> None:
        assert read("text[[30, 2, 3, 4]]\nWords.") == (
            "Words.",
            [Block(label="text", role=Role.TEXT, markdown="Words.")],
        )

    @pytest.mark.parametrize(
        "line",
        [
            "tides[[1, 2, 30, 40]]",
            "Text[[1, 2, 30, 40]]",
            "context[[1, 2, 30, 40]]",
            " text[[1, 2, 30, 40]]",
            "the text[[1, 2, 30, 40]]",
            "text [[1, 2, 30, 40]]",
            "text[[1, 2, 30, 40]] and more",
            "text[[1, 2, 30, 40]][0]",
            "text[[1, 2, 30, 40]",
            "text[1, 2, 30, 40]",
            "text[[1, 2, 30]]",
            "text[[1, 2, 30, 40, 50]]",
            "text[[1, 2, 30, 4000]]",
            "text[[1, 2, 30, -4]]",
            "text[[1, 2, 30, x]]",
            "text[[1, 2,\n30, 40]]",
            "text[[1, 2, 30, 40],]",
            "text[[]]",
            "text[[1, 2, 30, 40",
        ],
    )
    def test_almost_valid_tags_are_text(self, line: str) -> None:
        assert read(f"Before.\n{line}\nAfter.") == (f"Before.\n{line}\nAfter.", [])

    @pytest.mark.parametrize("tag", TAGS)
    def test_with_any_tag_left_no_stripped_tags_are_assumed(self, tag: str) -> None:
        line = "text[[1, 2, 30, 40]]"

        markdown, blocks = read(f"{tag}\n{line}\nWords.")

        assert line in markdown
        assert blocks == []


class TestRoles:
    @pytest.mark.parametrize(
        ("label", "text", "role"),
        [
            ("title", "# On tides", Role.TITLE),
            ("title", "On tides", Role.TITLE),
            ("title", "## Solution", Role.HEADING),
            ("sub_title", "## Solution", Role.HEADING),
            ("text", "The moon.", Role.TEXT),
            ("text", "## Solution", Role.HEADING),
            ("text", "- spring tides\n- neap tides", Role.LIST),
            ("equation", r"\[x = -a\tan \theta\]", Role.FORMULA),
            ("table", "<table></table>", Role.TABLE),
            ("table_caption", "Table 1", Role.CAPTION),
            ("table_footnote", "* in metres", Role.FOOTNOTE),
            ("image", "", Role.FIGURE),
            ("image_caption", "<center>Fig. 1</center>", Role.CAPTION),
            ("image_footnote", "After Lord Kelvin.", Role.FOOTNOTE),
            ("header", "# Almanac", Role.HEADER),
            ("footer", "1921", Role.FOOTER),
            ("page_number", "14", Role.PAGE_NUMBER),
            ("marginalia", "sic", Role.OTHER),
        ],
    )
    def test_labels_become_roles(self, label: str, text: str, role: Role) -> None:
        assert [one.role for one in parsed(block(label, text)).blocks] == [role]

    def test_every_layout_label_has_one(self) -> None:
        assert Role.OTHER not in ROLES.values()


class TestDoubt:
    """The warning of a page with an invalid layout; its text is kept."""

    @pytest.mark.parametrize("output", ["", END, block("text", "Words."), block("image"), "<|ref|>text<|/ref|>Words."])
    def test_none(self, output: str) -> None:
        assert parsed(output).damage is None

    def test_no_block(self) -> None:
        page = parsed("The moon pulls.\n\nTwice a day.")

        assert page.damage == "the text has no layout: there is not one block"
        assert page.text == "The moon pulls.\n\nTwice a day."

    def test_most_blocks_are_nowhere(self) -> None:
        good, bad = block("text", "a"), block("text", "b", box="[[9, 9, 1, 1]]")

        assert parsed(good + bad + bad).damage == "2 of 3 blocks have no place on the page"
        assert parsed(bad + bad).text == "b\n\nb"

    def test_some_blocks_are_nowhere(self) -> None:
        good, bad = block("text", "a"), block("text", "b", box="[[9, 9, 1, 1]]")

        assert parsed(bad).damage is None
        assert parsed(good + bad).damage is None
        assert parsed(good + bad + good + bad).damage is None


class TestPublished:
    def test_asked_for_markdown(self) -> None:
        page = parse(DEEPSEEK_MARKDOWN, width_px=883, height_px=736)

        title = "# LORA: LOW-RANK ADAPTATION OF LARGE LANGUAGE MODELS"
        box = (154.7, 114.2, 753.1, 172.4)
        assert page == Parsed(text=title, blocks=(Block(label="title", role=Role.TITLE, boxes=(box,), markdown=title),))

    def test_asked_to_ocr_the_image(self) -> None:
        page = parsed(DEEPSEEK_TEXT)

        assert page.text == "一段接一段\n\n越过高峰\n\n另一峰却又见"
        assert [one.role for one in page.blocks] == [Role.TEXT] * 3
        assert page.blocks[0].boxes == ((549, 653, 616, 679),)
        assert page.damage is None


LAYOUT = TAGS[:4]
words = st.integers(min_value=0, max_value=9999).map("w{:04}".format)
numbers = st.one_of(st.integers(-5, 1200).map(str), st.floats(0, 999).map(str))
pieces = st.one_of(
    st.sampled_from(TAGS + LAYOUT + LAYOUT),
    words,
    numbers,
    st.sampled_from(("[", "]", "[[", "]]", ",", ", ", "\n", "\n\n", " ", *sorted(ROLES))),
    st.lists(numbers, min_size=3, max_size=5).map(lambda four: f"[[{', '.join(four)}]]"),
    st.sampled_from((block("text"), block("image"), block("Of tides"), "<|ref|>text<|/ref|><|det|>")),
)
outputs = st.lists(pieces, max_size=40).map("".join)
#: parts of tags as well, and any other character
damaged = st.lists(st.one_of(pieces, st.sampled_from(TAGS).flatmap(lambda tag: st.sampled_from(
    [tag[:cut] for cut in range(1, len(tag))] + [tag[cut:] for cut in range(1, len(tag))])), st.text(max_size=5)),
    max_size=40).map("".join)  # fmt: skip
sizes = st.integers(min_value=1, max_value=20000)


class TestAnything:
    @given(damaged, sizes, sizes)
    @example("<|re<|ref|>f|>", 1, 1)
    def test_no_tag_is_left_and_every_box_lies_within_the_image(self, text: str, width: int, height: int) -> None:
        page = parse(text, width_px=width, height_px=height)

        assert not any(tag in page.text for tag in TAGS)
        for one in page.blocks:
            assert not any(tag in one.label + one.markdown for tag in TAGS)
            assert len(one.label) <= LABEL_LENGTH
            assert one.label == " ".join(one.label.split())
            assert all(0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height for x0, y0, x1, y1 in one.boxes)

    @given(damaged)
    def test_the_blocks_are_all_of_the_text(self, text: str) -> None:
        page = parsed(text)

        assert page.text == "\n\n".join(one.markdown for one in page.blocks if one.markdown)

    @given(outputs)
    def test_no_word_outside_tags_is_lost(self, text: str) -> None:
        markdown, _ = read(text)

        # What an opening tag is followed by may be a label or boxes; all else is what stands on the page.
        bare = text.replace(TAGS[4], "").replace(TAGS[5], "")
        written = re.sub(r"<\|(?:ref|det)\|>[^<]*", "", bare)
        at = 0
        for word in re.findall(r"w\d{4}", written):
            assert markdown.find(word, at) >= 0
            at = markdown.find(word, at) + len(word)

    @given(st.text().filter(lambda text: "<|" not in text and "<｜" not in text))  # noqa: RUF001 - half a token
    def test_text_without_tags_stays_as_it_is(self, text: str) -> None:
        assert read(text) == (text.strip(), [])

    @pytest.mark.parametrize(
        "unit",
        [
            *TAGS, "[", "]", "][", "[[1,", "[[1, 2, 3, 4], ", "1", " ", "\n", "<", "<|", "<|re",
            "<|ref|>a", "<|det|>[[1,", "<|det|>[ ", "<|det|>] ,", "<|ref|><|/ref|>", "<|ref|><|/ref|><|det|>",
            "<|ref|>a<|/ref|><|det|>[[1,2,3,4]]<|/det|>b", "<|ref|><|det|><|/ref|><|/det|>", "<|ground<|grounding|>",
            "text[[1, 2, 3, 4]]\n", "text[[", "text[[1, 2, 3, 4], ", "[1, 2, 3, 4], ", "\ntext", "text[[1, 2, 3, 4]]\n\r",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("before", ["", "<|det|>[", "<|ref|>a<|/ref|><|det|>[[1, 2", "text["])
    def test_a_long_output_is_read_in_linear_time(self, before: str, unit: str) -> None:
        assert_grows_linearly(lambda size: read(before + unit * (size // len(unit))), 200_000)
