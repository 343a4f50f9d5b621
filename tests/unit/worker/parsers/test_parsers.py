"""All parsers: any output becomes blocks with all of its text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrfleet.profiles.profile import Parser
from ocrfleet.records.pages import Block, PageResult, PageStatus, Role
from tests.support.growth import assert_grows_linearly
from worker.parsers import Parsed, markdown, parse

WIDTH, HEIGHT = 1190, 1684
LAYOUT = [parser for parser in Parser if parser is not Parser.TEXT]

#: all that any of the formats is made of
TOKENS = (
    "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "text", "title", "[[1, 2, 30, 40]]", '{"bbox": ', "[1, 2, 30, 40]",
    ', "category": "Text"', ', "text": "', '"}', ", {", "[", "]", '"', "\\", "\\u12", "\\ud83d", "---\n",
    "primary_language: en\n", "is_rotation_valid: True\n", "rotation_correction: 0\n", "is_table: False\n",
    "is_diagram: False\n", "<fcel>", "<ecel>", "<lcel>", "<ucel>", "<xcel>", "<nl>", "<table>", "</table>", "```", "\n",
    "\n\n", " ", "# ", "## ", "- ", "$$", "words", "\ud800", "\x00", "é", "\u2028",
)  # fmt: skip
outputs = st.lists(st.one_of(st.sampled_from(TOKENS), st.text(max_size=4)), max_size=40).map("".join)


def read(parser: Parser, output: str) -> Parsed:
    return parse(parser, output, width_px=WIDTH, height_px=HEIGHT)


@pytest.mark.parametrize("parser", LAYOUT)
@given(output=st.one_of(outputs, st.text()))
def test_the_blocks_are_all_of_the_text_and_can_be_stored(parser: Parser, output: str) -> None:
    page = read(parser, output)

    assert page.text == "\n\n".join(block.markdown for block in page.blocks if block.markdown)
    for block in page.blocks:
        assert block.markdown == block.markdown.strip()
        assert all(0 <= x0 < x1 <= WIDTH and 0 <= y0 < y1 <= HEIGHT for x0, y0, x1, y1 in block.boxes)
    stored = PageResult(
        page=1, status=PageStatus.DONE, profile="p", engine="e", model="m", revision="r", text=page.text,
        blocks=page.blocks,
    )  # fmt: skip
    assert PageResult.from_bytes(stored.to_bytes()) == stored


@given(st.text())
def test_text_is_taken_as_it_is(output: str) -> None:
    assert read(Parser.TEXT, output) == Parsed(text=output.encode(errors="replace").decode())


@pytest.mark.parametrize("parser", LAYOUT)
def test_empty_output_has_no_blocks(parser: Parser) -> None:
    assert read(parser, "").text == read(parser, " \n").text == ""


def parts(text: str) -> list[tuple[Role, str]]:
    return [(block.role, block.markdown) for block in markdown.blocks(text)]


class TestMarkdown:
    def test_a_page(self) -> None:
        assert parts(
            "# On tides\nThe moon pulls.\nTwice a day.\n\n\n## Springs\r\n\r\n- new moon\n- full moon\n\n"
            "$$\nx = 1\n$$\n\n| a | b |\n|---|---|\n\n![The moon](moon.png)\n\n[^1]: After Kelvin."
        ) == [
            (Role.TITLE, "# On tides"),
            (Role.TEXT, "The moon pulls.\nTwice a day."),
            (Role.HEADING, "## Springs"),
            (Role.LIST, "- new moon\n- full moon"),
            (Role.FORMULA, "$$\nx = 1\n$$"),
            (Role.TABLE, "| a | b |\n|---|---|"),
            (Role.FIGURE, "![The moon](moon.png)"),
            (Role.FOOTNOTE, "[^1]: After Kelvin."),
        ]

    def test_a_table_is_one_part_with_its_empty_lines(self) -> None:
        table = '<table class="x">\n\n<tr><td>\n\n<table>\n<tr></tr></table>\n\n# no heading</td></tr>\n</table>'

        assert parts(f"Before:\n{table}\nAfter.") == [
            (Role.TEXT, "Before:"),
            (Role.TABLE, table),
            (Role.TEXT, "After."),
        ]

    def test_code_is_one_part_with_its_empty_lines(self) -> None:
        code = "```python\n\n# no heading\n\n~~~\n``\n```"

        assert parts(f"Before:\n{code}\nAfter.") == [(Role.TEXT, "Before:"), (Role.CODE, code), (Role.TEXT, "After.")]

    @pytest.mark.parametrize("opening", ["<table>", "```", "~~~~"])
    def test_an_unclosed_element_extends_to_the_end(self, opening: str) -> None:
        assert [text for _, text in parts(f"a\n{opening}\n\nb\n\n# c")] == ["a", f"{opening}\n\nb\n\n# c"]

    @pytest.mark.parametrize(
        "line", ["#1 in the charts", "####### seven", "```code``` in a line", "1.5 m", "-5 °C", "*a*"]
    )
    def test_similar_looking_text_is_text(self, line: str) -> None:
        assert parts(f"{line}\n\nb") == [(Role.TEXT, line), (Role.TEXT, "b")]

    @given(outputs)
    def test_no_line_is_lost_or_moved(self, text: str) -> None:
        found = "\n".join(part for _, part in parts(text))

        assert "".join(found.split()) == "".join(text.split())

    def test_a_part_has_no_label_and_no_place(self) -> None:
        assert list(markdown.blocks("a")) == [Block(label="", role=Role.TEXT, markdown="a")]


@pytest.mark.parametrize("parser", LAYOUT)
@pytest.mark.parametrize(
    "before", ["", '[{"bbox": [1, 2, 30, 40], "category": "Text", "text": "', "<fcel>a<nl>", "<table>\n"]
)
@pytest.mark.parametrize(
    "unit", [*TOKENS, "\\\\", '" ', '" }', "<lcel><nl>", "<fcel><nl>", '{"text": "a"}', "![", "\n```", "<|re"]
)
def test_a_long_output_is_read_in_linear_time(parser: Parser, before: str, unit: str) -> None:
    assert_grows_linearly(lambda size: read(parser, before + unit * (size // len(unit))), 100_000)
