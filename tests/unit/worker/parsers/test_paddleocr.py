"""The parser of PaddleOCR-VL: tables become HTML, other text is kept."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrfleet.records.pages import Role
from tests.support.published_outputs import PADDLEOCR_CHART, PADDLEOCR_EMPTY_CELLS, PADDLEOCR_FORMULA, PADDLEOCR_TABLE
from worker.parsers import paddleocr
from worker.parsers.otsl import MAX_SPAN, TAGS


def text(output: str) -> str:
    return paddleocr.parse(output).text


def rows(*written: str) -> str:
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in written)}</table>"


class TestPublished:
    def test_a_table(self) -> None:
        read = paddleocr.parse(PADDLEOCR_TABLE)

        assert read.text == rows(
            "<td>分组</td><td>频数</td><td>频率</td>",
            "<td>[41,51)</td><td>2</td><td>\\( \\frac{2}{30} \\)</td>",
            "<td>[51,61)</td><td>1</td><td>\\( \\frac{1}{30} \\)</td>",
        )
        assert [block.role for block in read.blocks] == [Role.TABLE]
        assert read.damage is None

    def test_a_formula(self) -> None:
        read = paddleocr.parse(PADDLEOCR_FORMULA)

        assert read.text == PADDLEOCR_FORMULA
        assert [block.role for block in read.blocks] == [Role.FORMULA]

    def test_a_chart(self) -> None:
        assert text(PADDLEOCR_CHART) == PADDLEOCR_CHART.strip()

    def test_empty_cells(self) -> None:
        assert text(PADDLEOCR_EMPTY_CELLS) == rows("<td>3</td><td></td>", "<td>4</td><td>L911</td>")


class TestSpans:
    @pytest.mark.parametrize(
        ("output", "table"),
        [
            ("<fcel>a<lcel><lcel><nl>", rows('<td colspan="3">a</td>')),
            ("<fcel>a<nl><ucel><nl><ucel>\n<nl>", rows('<td rowspan="3">a</td>', "", "")),
            (
                "<fcel>a<lcel><fcel>b<nl><ucel><xcel><fcel>c<nl>",
                rows('<td rowspan="2" colspan="2">a</td><td>b</td>', "<td>c</td>"),
            ),
            (
                "<ecel><lcel><fcel>b<nl><fcel>c<ucel><fcel>d<nl>",
                rows('<td colspan="2"></td><td>b</td>', "<td>c</td><td></td><td>d</td>"),
            ),
            ("<fcel>a<fcel>b<nl><ucel><ucel><nl>", rows('<td rowspan="2">a</td><td rowspan="2">b</td>', "")),
            ("<fcel>a<lcel><nl><ucel><nl>", rows('<td colspan="2">a</td>', "<td></td>")),
            ("<fcel>a<nl><ucel>b<nl>", rows("<td>a</td>", "<td>b</td>")),
            ("<fcel>a<fcel>b<nl><fcel>c<nl>", rows("<td>a</td><td>b</td>", "<td>c</td>")),
        ],
    )
    def test_tables(self, output: str, table: str) -> None:
        read = paddleocr.parse(output)

        assert read.text == table
        assert read.damage is None

    def test_a_span_has_an_end(self) -> None:
        read = text("<fcel>a" + "<lcel>" * 2 * MAX_SPAN)

        assert max(map(int, re.findall(r'colspan="(\d+)"', read))) == MAX_SPAN

    def test_most_cells_belong_to_none(self) -> None:
        read = paddleocr.parse("<fcel>a<nl><lcel><xcel><nl><xcel><nl>")

        assert read.damage == "the table is no grid: 3 of 4 cells belong to none"
        assert read.text == rows("<td>a</td>", "<td></td><td></td>", "<td></td>")


class TestAround:
    def test_text_before_between_and_after_tables(self) -> None:
        read = paddleocr.parse(
            f"# Tides\nTable 1\n{PADDLEOCR_EMPTY_CELLS}\nTable 2\n{PADDLEOCR_EMPTY_CELLS}\n\nIn metres."
        )

        assert [(block.role, block.markdown[:10]) for block in read.blocks] == [
            (Role.TITLE, "# Tides"),
            (Role.TEXT, "Table 1"),
            (Role.TABLE, "<table><tr"),
            (Role.TEXT, "Table 2"),
            (Role.TABLE, "<table><tr"),
            (Role.TEXT, "In metres."),
        ]

    def test_an_end_of_a_row_without_a_row_is_one_of_a_line(self) -> None:
        assert text("One<nl>two") == "One\ntwo"

    def test_text_in_a_cell_can_do_nothing(self) -> None:
        assert text("<fcel>a < b</td></table>\n\n<script>&amp;<nl>") == rows(
            "<td>a &lt; b&lt;/td&gt;&lt;/table&gt;<br>&lt;script&gt;&amp;amp;</td>"
        )

    @pytest.mark.parametrize("remnant", ["<fc", "<nl", "<xcel", "<fcel>", "<lcel"])
    def test_a_tag_that_was_cut_off_is_lost_and_nothing_before_it(self, remnant: str) -> None:
        assert text(f"<fcel>a<fcel>b{remnant}").startswith("<table><tr><td>a</td><td>b</td>")
        assert "&lt;" not in text(f"<fcel>a<fcel>b{remnant}")

    def test_a_table_that_was_cut_off(self) -> None:
        assert text("<fcel>a<fcel>b<nl><fcel>c") == rows("<td>a</td><td>b</td>", "<td>c</td>")


words = st.integers(0, 9999).map("w{:04}".format)
outputs = st.lists(
    st.one_of(st.sampled_from(TAGS), words, st.sampled_from((" ", "\n", "\n\n", "<", "<fc", "el>"))), max_size=60
)


class TestAnything:
    @given(outputs.map("".join))
    def test_no_tag_is_left_and_no_word_is_lost(self, output: str) -> None:
        read = text(output)

        assert not any(tag in read for tag in TAGS)
        assert re.findall(r"w\d{4}", read) == re.findall(r"w\d{4}", output)

    @given(st.lists(st.lists(st.sampled_from(TAGS[:5]), min_size=1, max_size=6), min_size=1, max_size=6))
    def test_each_place_of_the_grid_is_in_one_cell(self, grid: list[list[str]]) -> None:
        read = text("".join("".join(row) + "<nl>" for row in grid))

        spans = [
            int((re.search(r'rowspan="(\d+)"', cell) or ["", 1])[1])  # type: ignore[arg-type]
            * int((re.search(r'colspan="(\d+)"', cell) or ["", 1])[1])  # type: ignore[arg-type]
            for cell in re.findall(r"<td[^>]*>", read)
        ]
        assert sum(spans) == sum(map(len, grid))
        assert read.count("<tr>") == len(grid)
