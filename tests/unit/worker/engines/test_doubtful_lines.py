"""Corrections of a line that was read: spaces and strokes by its ink, signs by their word, the better of two readings."""

from __future__ import annotations

import numpy as np
import pytest

from worker.engines.line_signs import consistent
from worker.engines.line_spaces import with_spaces
from worker.engines.line_strokes import counted
from worker.engines.line_words import Letter
from worker.engines.second_reading import chosen, doubtful

#: Of the drawn line, in pixels: height, width of a stroke, gap between two, and space.
HEIGHT, STROKE, GAP, SPACE = 40, 6, 5, 16


def drawn(text: str) -> np.ndarray:
    """Return a line's image in which each character is a bar."""
    crop = np.full((HEIGHT, 20 + (STROKE + GAP) * len(text) + SPACE * text.count(" "), 3), 250, np.uint8)
    x = 10
    for character in text:
        if character == " ":
            x += SPACE
            continue
        crop[8:32, x : x + STROKE] = 20
        x += STROKE + GAP
    return crop


def read(text: str, shown: str, *, confidence: float = 1.0, doubtful: str = "") -> list[Letter]:
    """Return the letters of `text`, at the bars of `shown` in their order; those of `doubtful` have half the confidence."""
    middles, x = [], 10.0
    for character in shown:
        if character == " ":
            x += SPACE
            continue
        middles.append((x + STROKE / 2) / drawn(shown).shape[1])
        x += STROKE + GAP
    places = iter(middles)
    return [
        Letter(sign, None if sign == " " else next(places), confidence / 2 if sign in doubtful else confidence)
        for sign in text
    ]


def text_of(letters: list[Letter]) -> str:
    return "".join(letter.text for letter in letters)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("XLIVXXXVII", "XLIV XXXVII"),
        ("XXIXLIVIJOHN", "XXI XLIVI JOHN"),
        ("IV453", "IV 453"),
        ("115II", "115 II"),
        ("VIIIII", "VI II II"),
    ],
)
def test_a_space_that_the_ink_shows_is_written(written: str, shown: str) -> None:
    assert text_of(with_spaces(read(written, shown), drawn(shown))) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("CHAPTER", "C H A P T E R"),  # letter-spaced
        ("letters", "le tte rs"),  # a typewriter's
        ("174617", "17 46 17"),
        ("e.g.XII", "e. g. XII"),
        ("LVI", "L VI"),  # too few gaps to tell
        ("321B", "321 B"),  # a code: 1 is narrow
        ("A101B", "A 101 B"),
        ("\u4eba\u4eba\u751f\u800c\u81ea\u7531", "abc def"),
    ],
)
def test_a_wide_gap_of_another_kind_is_no_space(written: str, shown: str) -> None:
    assert text_of(with_spaces(read(written, shown), drawn(shown))) == written


@pytest.mark.parametrize(
    ("written", "doubtful", "right"),
    [
        ("I0.20", "I", "10.20"),
        ("in 18O0,", "O", "in 1800,"),
        ("V|", "|", "VI"),
        ("LXXXV1I map", "1", "LXXXVII map"),
        ("(XIl)", "l", "(XII)"),
        ("CxIV", "x", "CXIV"),
        ("PIate", "I", "Plate"),
    ],
)
def test_a_doubtful_sign_follows_the_others_of_its_word(written: str, doubtful: str, right: str) -> None:
    assert text_of(consistent(read(written, written, doubtful=doubtful))) == right
    assert text_of(consistent(read(written, written))) == written


@pytest.mark.parametrize(
    "written",
    [
        *("1o", "2o", "21o", "Ill", "xxv", "Mill", "Illinois", "LII", "I", "CO", "B1", "4l", "50l"),
        # Rules of a table beside numbers, labels, names of elements and of programs
        *("|12.50", "450|", "10|20|30", "V1", "M1", "C1", "D1", "X11", "Cl", "Mc", "Xl"),
        *("McIntyre", "userId", "parseInt", "getItem", "toInt", "NaI", "HgI", "GIs"),
    ],
)
def test_signs_that_fit_their_word_stay(written: str) -> None:
    assert text_of(consistent(read(written, written, doubtful="Ilo1xOc|"))) == written


@pytest.mark.parametrize(
    ("written", "shown"), [("I1", "III"), ("\u2161I", "II"), ("\u2162II", "III"), ("II\u2162II", "II III")]
)
def test_a_numeral_has_as_many_strokes_as_the_ink(written: str, shown: str) -> None:
    found = counted(read(written, shown.replace(" ", "x"), confidence=0.7), drawn(shown))
    assert text_of(found) == shown.replace(" ", "")
    assert text_of(with_spaces(found, drawn(shown))) == shown


def test_a_rule_far_from_a_numeral_is_no_stroke_of_it() -> None:
    crop = drawn("I   II")
    between_the_last_two = (10 + STROKE + GAP + 3 * SPACE + STROKE + GAP / 2) / crop.shape[1]
    assert text_of(counted([Letter("I", between_the_last_two, 0.7)], crop)) == "II"


def test_a_numeral_of_which_the_recogniser_is_sure_stays() -> None:
    assert text_of(counted(read("II", "III"), drawn("III"))) == "II"
    assert text_of(counted(read("XLVI", "XLVII", confidence=0.7), drawn("XLVII"))) == "XLVI"


def test_the_surer_reading_is_chosen_if_the_ink_has_as_many_letters() -> None:
    crop = drawn("XXXV")
    first, second = read("XXxV", "XXXV", confidence=0.7), read("XXXV", "XXXV", confidence=0.9)
    assert chosen(first, second, crop) == second
    assert chosen(second, first, crop) == second
    assert chosen(first, read("XXV", "XXXV", confidence=0.9), crop) == first
    assert chosen(first, read("MIDV", "XXXV", confidence=0.9), crop) == first


def test_the_shortest_doubtful_lines_are_read_again() -> None:
    sure, unsure = read("XII", "XII"), read("xII", "XII", doubtful="x")
    short, long = drawn("XII"), np.zeros((HEIGHT, 41 * HEIGHT, 3), np.uint8)
    assert list(doubtful([sure, unsure, unsure], [short, long, short])) == [2]


def test_a_doubtful_word_of_small_letters_is_not_read_again() -> None:
    assert list(doubtful([read("printed", "printed", doubtful="e")], [drawn("printed")])) == []
