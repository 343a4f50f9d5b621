"""The words of a line that a recogniser read: their letters' places become boxes that end where the ink ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

from worker.engines.line_words import Letter, letters, words

#: Of the drawn line, in pixels; each letter is a bar of this width.
HEIGHT, LETTER, SPACE = 40, 10, 24


@dataclass
class WordInfo:
    """RapidOCR's result for a line: columns of the characters without spaces, and the number of columns."""

    word_cols: list[list[int]]
    line_txt_len: float
    confs: list[float] = field(default_factory=list)


def drawn(text: str) -> tuple[np.ndarray, list[Letter], list[tuple[int, int]]]:
    """Return a line's image, its letters with places near their middles, and where its words begin and end."""
    crop = np.full((HEIGHT, 20 + sum(SPACE if c == " " else LETTER + 3 for c in text), 3), 250, np.uint8)
    read: list[Letter] = []
    ends: list[tuple[int, int]] = []
    x, begins = 10, True
    for character in text:
        if character == " ":
            x, begins = x + SPACE, True
            read.append(Letter(" ", None, 1.0))
            continue
        crop[10:30, x : x + LETTER] = 20
        ends = [*ends, (x, x + LETTER)] if begins else [*ends[:-1], (ends[-1][0], x + LETTER)]
        begins = False
        read.append(Letter(character, (x + LETTER / 2 + 3) / crop.shape[1], 0.9))
        x += LETTER + 3
    return crop, read, ends


def corners(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


def test_letters_have_the_middles_of_their_columns() -> None:
    seen = letters("a bc", WordInfo([[0], [2, 3]], 4.0, [0.5, 1.0, 0.25, 0.125]))
    assert seen == [
        Letter("a", 0.125, 0.5),
        Letter(" ", None, 1.0),
        Letter("b", 0.625, 0.25),
        Letter("c", 0.875, 0.125),
    ]


def test_words_end_where_their_ink_ends() -> None:
    crop, read, ends = drawn("one three i")
    found = words(read, crop, corners(100, 200, 100 + crop.shape[1], 200 + HEIGHT))
    assert [word.text for word in found] == ["one", "three", "i"]
    assert [word.confidence for word in found] == [0.9] * 3
    assert [word.box for word in found] == [(100 + first, 210, 100 + last, 230) for first, last in ends]


def test_white_on_black_is_the_same() -> None:
    crop, read, ends = drawn("one three")
    found = words(read, 255 - crop, corners(0, 0, crop.shape[1], HEIGHT))
    assert [word.box[::2] for word in found] == ends


def test_a_line_that_was_turned_to_be_read_runs_down_the_page() -> None:
    crop, read, ends = drawn("one three")
    # Upright on the page, the line is higher than wide: its image is the page's, turned by a quarter counter-clockwise.
    found = words(read, crop, corners(50, 300, 50 + HEIGHT, 300 + crop.shape[1]))
    assert [word.box[1::2] for word in found] == [(300 + first, 300 + last) for first, last in ends]
    page = np.rot90(crop, -1)
    x0, y0, x1, y1 = (round(value) for value in found[0].box)
    assert page[y0 - 300 : y1 - 300, x0 - 50 : x1 - 50].min() == 20
    assert page[y0 - 300 : y1 - 300, : x0 - 50].min() == 250


def test_marks_of_the_neighbouring_line_are_left_out() -> None:
    crop, read, _ = drawn("one two")
    cv2.rectangle(crop, (12, 0), (14, 3), (20, 20, 20), -1)
    first, second = words(read, crop, corners(0, 0, crop.shape[1], HEIGHT))
    assert first.box[1::2] == second.box[1::2] == (10, 30)


@pytest.mark.parametrize("paper", [0, 255])
def test_without_ink_words_end_at_their_nearest_letters(paper: int) -> None:
    crop = np.full((HEIGHT, 100, 3), paper, np.uint8)
    read = [Letter("a", 0.2, 1.0), Letter(" ", None, 1.0), Letter("b", 0.8, 1.0)]
    assert [word.box for word in words(read, crop, corners(0, 0, 100, HEIGHT))] == [(0, 0, 20, 40), (80, 0, 100, 40)]
    assert words([], crop, corners(0, 0, 100, HEIGHT)) == ()
