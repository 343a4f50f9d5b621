"""Reading order: the lines of a page are returned in the order in which people read them."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocrfleet.records.pages import Line
from tests.support.growth import assert_grows_linearly
from worker.engines.layout.reading_order import order, parted, text_of

HEIGHT, PITCH = 30, 36


def line(text: str, x: float, y: float, width: float = 600, height: float = HEIGHT) -> Line:
    return Line(text=text, box=(x, y, x + width, y + height))


def column(name: str, x: float, y: float, rows: int, width: float = 600) -> list[Line]:
    return [line(f"{name}{row}", x, y + row * PITCH, width) for row in range(rows)]


def words(lines: list[Line], *, angle: float = 0.0) -> list[str]:
    """Order shuffled lines and return their texts."""
    shuffled = random.Random(7).sample(lines, len(lines))  # noqa: S311 - a fixed order, no secret
    return text_of(order(shuffled, angle=angle)).split()


def texts(*parts: list[Line]) -> list[str]:
    return [one.text for part in parts for one in part]


def skewed(lines: list[Line], degrees: float) -> list[Line]:
    """Return the lines of a skewed page: the boxes around them."""
    turn = math.radians(degrees)
    result = []
    for one in lines:
        x0, y0, x1, y1 = one.box
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        x = corners[:, 0] * math.cos(turn) - corners[:, 1] * math.sin(turn)
        y = corners[:, 0] * math.sin(turn) + corners[:, 1] * math.cos(turn)
        result.append(Line(text=one.text, box=(x.min(), y.min(), x.max(), y.max())))
    return result


class TestColumns:
    def test_no_lines(self) -> None:
        assert order([]) == []
        assert text_of([]) == ""

    def test_two_columns_are_read_one_after_the_other(self) -> None:
        left, right = column("left", 100, 100, 20), column("right", 730, 100, 18)

        assert words(left + right) == texts(left, right)

    def test_columns_need_not_share_their_baselines(self) -> None:
        left, right = column("left", 100, 100, 20), column("right", 730, 117, 19)

        assert words(left + right) == texts(left, right)

    def test_three_columns(self) -> None:
        first, second, third = (column(name, x, 100, 15, 400) for name, x in (("a", 100), ("b", 530), ("c", 960)))

        assert words(first + second + third) == texts(first, second, third)

    def test_a_heading_across_columns_separates_the_text_above_from_that_below(self) -> None:
        title = [line("title", 300, 40, 800)]
        above = column("a", 100, 100, 8), column("b", 730, 100, 8)
        heading = [line("heading", 100, 410, 1230)]
        below = column("c", 100, 470, 8), column("d", 730, 470, 8)

        read = words(title + above[0] + above[1] + heading + below[0] + below[1])

        assert read == texts(title, *above, heading, *below)

    def test_running_head_and_page_number_stay_at_the_ends(self) -> None:
        head = [line("head-left", 100, 20, 200), line("head-right", 1130, 20, 200)]
        left, right = column("left", 100, 100, 20), column("right", 730, 100, 20)
        number = [line("number", 705, 880, 20)]

        assert words(head + left + right + number) == texts(head, left, right, number)

    def test_footnotes_follow_their_columns(self) -> None:
        left, right = column("left", 100, 100, 20), column("right", 730, 100, 20)
        left_notes = [line(f"note-l{n}", 100, 860 + n * 28, 590, 22) for n in range(3)]
        right_notes = [line(f"note-r{n}", 730, 860 + n * 28, 590, 22) for n in range(3)]

        assert words(left + right + left_notes + right_notes) == texts(left, left_notes, right, right_notes)

    def test_footnotes_across_the_page_come_last(self) -> None:
        left, right = column("left", 100, 100, 20), column("right", 730, 100, 20)
        notes = column("note", 100, 900, 3, 1230)

        assert words(left + right + notes) == texts(left, right, notes)

    def test_without_columns_higher_lines_come_first(self) -> None:
        date, dear, body = line("date", 900, 100, 300), line("dear", 100, 200, 150), column("body", 100, 280, 10, 1100)

        assert words([date, dear, *body]) == ["date", "dear", *texts(body)]


class TestRows:
    def test_fragments_of_a_row_stay_together(self) -> None:
        whole = column("line", 100, 100, 9, 1000)
        # The detector split the fifth line at two wide spaces, and the pieces' boxes are not at one height.
        fragments = [line("one", 100, 246, 300), line("two", 440, 241, 300), line("three", 780, 247, 320)]
        lines = whole[:4] + fragments + whole[5:]

        rows = [row for paragraph in order(lines[::-1]) for row in paragraph]

        assert [[one.text for one in row] for row in rows] == [
            *([one.text] for one in whole[:4]),
            ["one", "two", "three"],
            *([one.text] for one in whole[5:]),
        ]

    def test_fragments_stay_in_their_column(self) -> None:
        left, right = column("left", 100, 100, 20), column("right", 730, 100, 20)
        broken = [line("left-a", 100, left[9].box[1], 250), line("left-b", 380, left[9].box[1] + 2, 320)]

        read = words(left[:9] + broken + left[10:] + right)

        assert read == texts(left[:9], broken, left[10:], right)

    def test_a_table_is_read_by_rows(self) -> None:
        cells = [line(f"r{row}c{col}", 100 + 260 * col, 100 + 50 * row, 130) for row in range(8) for col in range(5)]

        assert words(cells) == texts(cells)


class TestSkew:
    @pytest.mark.parametrize("degrees", [-3.0, -1.0, 1.0, 3.0])
    def test_columns_of_a_skewed_page(self, degrees: float) -> None:
        title = [line("title", 300, 40, 800)]
        left, right = column("left", 100, 130, 20), column("right", 750, 130, 20)

        assert words(skewed(title + left + right, degrees), angle=degrees) == texts(title, left, right)

    @pytest.mark.parametrize("degrees", [-2.0, 2.0])
    def test_fragments_of_a_skewed_row(self, degrees: float) -> None:
        fragments = [
            line(f"r{row}f{part}", 100 + 420 * part, 100 + PITCH * row, 380) for row in range(3) for part in range(3)
        ]

        assert words(skewed(fragments, degrees), angle=degrees) == texts(fragments)


class TestParagraphs:
    def test_a_gap_begins_a_paragraph(self) -> None:
        lines = column("a", 100, 100, 5) + column("b", 100, 310, 5)

        assert text_of(order(lines)) == "a0\na1\na2\na3\na4\n\nb0\nb1\nb2\nb3\nb4"

    def test_a_first_line_indent_begins_a_paragraph(self) -> None:
        lines = column("a", 100, 100, 8)
        lines[4] = line("a4", 140, lines[4].box[1], 560)

        assert text_of(order(lines)) == "a0\na1\na2\na3\n\na4\na5\na6\na7"

    def test_a_column_alone_begins_none(self) -> None:
        paragraphs = order(column("left", 100, 100, 10) + column("right", 730, 100, 10))

        assert len(paragraphs) == 1


class TestParted:
    def test_pieces_beside_a_gutter_are_parted(self) -> None:
        left, right = column("left", 100, 100, 10), column("right", 730, 100, 10)

        apart = parted(np.array([one.box for one in left + right]))

        assert apart[:10, 10:].all()
        assert apart.sum() == 100

    def test_wide_spaces_are_no_gutter(self) -> None:
        lines = column("line", 100, 100, 10, 1000)
        pieces = [(100.0, 280.0, 500.0, 310.0), (530.0, 280.0, 1100.0, 310.0)]

        assert not parted(np.array([one.box for one in lines] + pieces)).any()
        assert not parted(np.empty((0, 4))).any()


coordinate = st.floats(min_value=-100, max_value=3000, allow_nan=False, width=32)
extent = st.floats(min_value=0, max_value=1500, allow_nan=False, width=32)
grid = st.integers(min_value=0, max_value=6).map(lambda step: step * 40.0)  # many equal and touching boxes
boxes = st.tuples(coordinate | grid, coordinate | grid, extent | grid, extent | grid)


class TestAnything:
    @given(st.lists(boxes, max_size=60), st.floats(min_value=-20, max_value=20))
    def test_every_line_is_returned_once(self, found: list[tuple[float, float, float, float]], angle: float) -> None:
        lines = [Line(text=str(n), box=(x, y, x + w, y + h)) for n, (x, y, w, h) in enumerate(found)]

        read = [one.text for paragraph in order(lines, angle=angle) for row in paragraph for one in row]

        assert sorted(read, key=int) == [one.text for one in lines]

    @given(st.lists(boxes, max_size=30, unique=True), st.randoms(use_true_random=False))
    @example([(0.0, 0.0, 0.0, 2.0), (0.0, 1.0, 0.0, 0.0)], random.Random(1))  # noqa: S311 - one centre, two boxes
    def test_the_order_of_the_input_does_not_matter(
        self, found: list[tuple[float, float, float, float]], shuffle: random.Random
    ) -> None:
        lines = [Line(text=str(n), box=(x, y, x + w, y + h)) for n, (x, y, w, h) in enumerate(found)]
        distinct = list({one.box: one for one in lines}.values())
        other = distinct.copy()
        shuffle.shuffle(other)

        assert order(distinct) == order(other)

    def test_five_hundred_lines_take_time_in_proportion(self) -> None:
        def lines(count: int) -> list[Line]:
            return [one for page in range(5) for one in column(f"c{page}-", 100 + 630 * page, 100, count // 5)]

        assert_grows_linearly(lambda count: order(lines(count)), 500)
