"""Ink that was not read: it has places for the words of a model's text, in reading order."""

from __future__ import annotations

import numpy as np
import pytest

from ocrfleet.records.pages import Placed, Word
from worker.words.assignment import assign
from worker.words.placing import ModelWord, place
from worker.words.unread import UNREAD, with_unread

PAGE = (0.0, 0.0, 1000.0, 400.0)


def paper(*marks: tuple[int, int, int, int]) -> np.ndarray:
    """Return a white page with black marks."""
    grey = np.full((400, 1000), 255, np.uint8)
    for x0, y0, x1, y1 in marks:
        grey[y0:y1, x0:x1] = 0
    return grey


def test_leaders_of_dots_are_where_they_are_printed() -> None:
    # Given a line of a list of contents, whose dots nobody read, above a rule
    dots = [(x, 124, x + 5, 129) for x in range(330, 800, 23)]
    read = [Word("Herring", (100, 100, 300, 130), None, 0), Word("17", (850, 100, 900, 130), None, 1)]
    words = with_unread(paper(*dots, (0, 140, 1000, 143)), read, [word.box for word in read])

    # When a model writes the line with its dots
    given = ["Herring", *["."] * len(dots), "17"]
    found = place([ModelWord(text, None, 0) for text in given], words, [], PAGE)

    # Then each dot is in its place
    assert [word.text for word in found] == given
    assert [word.box[0] for word in found[1:-1]] == [x for x, *_ in dots]
    assert {word.placed for word in found[1:-1]} == {Placed.INTERPOLATED}


@pytest.mark.parametrize("backwards", [False, True])
def test_lines_that_nobody_read_are_places_in_reading_order(*, backwards: bool) -> None:
    # Given two lines of a script that the recogniser lacks
    widths, x, rows = [90, 40, 120, 60, 30], 100, []
    for width in widths:
        rows.append((x, x + width))
        x += width + 20
    marks = [(x0, y, x1, y + 24) for y in (100, 200) for x0, x1 in rows]
    words = with_unread(paper(*marks), [], [(100, y - 4, x, y + 28) for y in (100, 200)], backwards=backwards)
    assert {character for word in words for character in word.text} == {UNREAD}

    # When a model writes words of these lengths
    order = rows[::-1] if backwards else rows
    letters = "א" if backwards else "a"
    given = [letters * round((x1 - x0) / 10) for _ in (1, 2) for x0, x1 in order]
    found = place([ModelWord(text, None, number // 5) for number, text in enumerate(given)], words, [], PAGE)

    # Then they stand on the words of the lines, in the direction of the script
    assert [word.box[0] for word in found] == [x0 for _ in (1, 2) for x0, _ in order]
    assert [word.box[1] for word in found] == [word.box[1] for word in words]


def test_a_word_that_is_missing_does_not_move_the_others() -> None:
    seen = ["a" * length for length in (9, 4, 12, 6, 3, 8)]
    parts = assign(["b" * length for length in (9, 4, 6, 3, 8)], seen)
    assert [part.word for part in parts] == [0, 1, 3, 4, 5]
    assert all((part.begin, part.end) == (0, 1) for part in parts)


def test_rows_of_a_table_that_came_in_another_order() -> None:
    # Given the cells of two rows in a mixed order
    rows = [["Aberdeen", "1,204", "977"], ["Bergen", "3,310", "1,862"]]
    cells = [
        Word(text, (100 + 200 * column, 100 + 40 * row, 200 + 200 * column, 130 + 40 * row), None, 3 * row + column)
        for row, texts in enumerate(rows)
        for column, text in enumerate(texts)
    ]
    mixed = [cells[number] for number in (0, 3, 1, 5, 4, 2)]
    found = place([ModelWord(text, None, row) for row, texts in enumerate(rows) for text in texts], mixed, [], PAGE)
    assert [word.box for word in found] == [word.box for word in cells]


def test_a_column_of_digits_that_was_read_as_one_line_is_places_row_by_row() -> None:
    # Given rows of names and zeros; the zeros below each other were read as one line
    names = ["Aberdeen", "Bergen", "Cuxhaven"]
    marks = [(400, 100 + 40 * row, 412, 124 + 40 * row) for row in range(3)]
    read = [Word(name, (100, 98 + 40 * row, 220, 126 + 40 * row), None, row) for row, name in enumerate(names)]
    column = Word("000", (398, 98, 414, 208), None, 3)
    words = with_unread(paper(*marks), [*read, column], [word.box for word in (*read, column)])

    given = [ModelWord(text, None, row) for row, name in enumerate(names) for text in (name, "0")]
    found = place(given, words, [], PAGE)

    assert [(word.box[0], word.box[1]) for word in found[1::2]] == [(400, 98 + 40 * row) for row in range(3)]
