"""Words of a model's text get the places of the same recognised words, despite errors in either text."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrfleet.records.pages import Block, Placed, Word
from tests.support.growth import assert_grows_linearly
from worker.words.model_words import placed_words
from worker.words.placing import ModelWord, place

PAGE = (0.0, 0.0, 1000.0, 2000.0)
LINES = [
    "The archive was moved to the new house in spring,",
    "and with it went the letters that nobody had read",
    "since they were written. Some of them had been",
    "opened by people who were looking for money; others",
    "were still closed. When the work began, it was not",
    "known how many there would be, or whether they",
    "should be kept at all. After three years the last",
    "box had been emptied, and every letter was in its",
    "own folder, with the name of whoever had sent it.",
]


def seen(lines: list[str] = LINES) -> list[Word]:
    """Return the words of lines, ten pixels a character, one line each 40 pixels."""
    found = []
    for number, line in enumerate(lines):
        x = 100.0
        for text in line.split():
            found.append(Word(text, (x, 100 + 40 * number, x + 10 * len(text), 130 + 40 * number), 0.9, number))
            x += 10 * (len(text) + 1)
    return found


def placed(lines: list[str], there: list[Word] | None = None) -> tuple[Word, ...]:
    words = [ModelWord(text, None, row) for row, line in enumerate(lines) for text in line.split()]
    found = place(words, seen() if there is None else there, [], PAGE)
    assert [word.text for word in found] == [word.text for word in words]
    return found


def rows(words: tuple[Word, ...]) -> list[float]:
    """Return the tops of the words, each once where it is repeated."""
    tops = [word.box[1] for word in words]
    return [top for number, top in enumerate(tops) if not number or top != tops[number - 1]]


def test_the_same_text_stands_where_it_was_seen() -> None:
    found = placed(LINES)
    assert [word.box for word in found] == [word.box for word in seen()]
    assert {word.placed for word in found} == {Placed.DETECTED}
    assert [word.line for word in found] == [word.line for word in seen()]
    assert {word.confidence for word in found} == {None}  # the one of the recogniser applies to its own text


def test_a_paragraph_on_one_line_stands_on_the_lines_of_the_page() -> None:
    assert [word.box for word in placed([" ".join(LINES)])] == [word.box for word in seen()]


def test_wrong_letters_on_both_sides() -> None:
    chance = random.Random(3)  # noqa: S311 - a test
    wrong = [
        "".join(chance.choice("aeimn") if one.isalpha() and chance.random() < 0.1 else one for one in line)
        for line in LINES
    ]
    there = [word._replace(text=word.text.replace("e", "c").replace("h", "b")) for word in seen()]
    right = [
        abs(word.box[0] - truth.box[0]) <= 15 and word.box[1] == truth.box[1]
        for word, truth in zip(placed(wrong, there), seen(), strict=True)
    ]
    assert sum(right) >= 0.95 * len(right)


def test_missing_lines_and_a_line_that_stands_twice() -> None:
    lines = [*LINES[:2], *LINES[3:5], LINES[4], *LINES[6:]]
    found = placed(lines)
    truth = [word.box[1] for number in (0, 1, 3, 4, 4, 6, 7, 8) for word in seen() if word.line == number]
    assert sum(word.box[1] == top for word, top in zip(found, truth, strict=True)) >= 0.97 * len(truth)


def test_a_part_in_another_order() -> None:
    lines = [*LINES[5:], *LINES[:5]]
    assert rows(placed(lines)) == [100 + 40 * number for number in (5, 6, 7, 8, 0, 1, 2, 3, 4)]


def test_a_hyphenated_word_that_the_model_joined_stands_on_one_of_its_lines() -> None:
    there = seen(["the harbour was empt-", "ied before the winter came"])
    found = placed(["the harbour was emptied before the winter came"], there)
    assert found[3].box[1] in {100, 140}
    assert rows(found) == [100, 140]


def test_a_word_that_was_not_seen_stands_in_the_gap() -> None:
    there = [word for word in seen() if word.text != "letters"]
    missing = next(word for word in placed(LINES, there) if word.text == "letters")
    right = next(word for word in seen() if word.text == "letters")
    assert missing.placed is Placed.INTERPOLATED
    assert abs(missing.box[0] - right.box[0]) <= 10
    assert abs(missing.box[2] - right.box[2]) <= 10


def test_a_line_that_was_not_seen_stands_between_its_neighbours() -> None:
    there = [word for word in seen() if word.line != 4]
    missing = [word for word in placed(LINES, there) if word.placed is not Placed.DETECTED]
    assert [word.text for word in missing] == LINES[4].split()
    assert all(word.placed is Placed.INTERPOLATED and 245 < sum(word.box[1::2]) / 2 < 305 for word in missing)


def test_what_is_nowhere_lies_in_its_block() -> None:
    blocks = [
        Block(label="text", boxes=((90, 90, 700, 500),), markdown="\n".join(LINES)),
        Block(label="formula", boxes=((50, 600, 900, 700),), markdown="$$\\zeta(q) = 0$$"),
    ]
    found = placed_words("", blocks, seen(), width=1000, height=2000)
    assert {word.block for word in found} == {0, 1}
    formula = [word for word in found if word.block == 1]
    assert formula
    assert {(word.placed, word.box) for word in formula} == {(Placed.BLOCK, (50, 600, 900, 700))}


def test_nothing_was_seen() -> None:
    assert {(word.placed, word.box) for word in placed(LINES, [])} == {(Placed.BLOCK, PAGE)}
    assert placed([], []) == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=12), st.lists(st.text(max_size=12), max_size=12))
def test_every_word_is_returned_whatever_was_written_or_seen(written: list[str], read: list[str]) -> None:
    placed(written, [Word(text, (0, 0, 1, 1), None, number) for number, text in enumerate(read)])


@pytest.mark.parametrize("text", ["aaaa ", "abcdef ", "x "])
def test_the_time_grows_with_the_text(text: str) -> None:
    assert_grows_linearly(lambda size: placed([text * size], seen([text * size])), 2_000)
