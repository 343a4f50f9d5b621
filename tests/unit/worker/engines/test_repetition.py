"""Repetitions are detected early, and pages that only resemble one are accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.repetitions import BEFORE, LOOPS, PAGES, Looping, text_layers, watch
from worker.engines.repetition import LoopWatch


class TestLoops:
    @pytest.mark.parametrize("looping", LOOPS, ids=lambda looping: looping.name)
    def test_a_loop_as_users_met_it_is_seen_within_its_bound(self, looping: Looping) -> None:
        loop, fed = watch(looping.text)

        # Then it is detected in time, and the removed text starts with the loop
        assert loop is not None
        assert fed - len(BEFORE) <= looping.bound
        assert abs(loop.start - len(BEFORE)) <= loop.period + 1
        assert looping.text.startswith(loop.unit.removesuffix("…"), loop.start) or "irregular" in looping.name

    def test_the_kept_text_has_one_copy_of_the_repetition(self) -> None:
        loop, _ = watch(BEFORE + "The tide came in.\n" * 200)

        assert loop is not None
        assert (BEFORE + "The tide came in.\n" * 200)[
            : loop.start + loop.period
        ].rstrip() == f"{BEFORE}The tide came in."
        assert (loop.period, loop.times) == (18, 62)  # two more are written until the check

    def test_a_detected_repetition_stays_detected(self) -> None:
        watched = LoopWatch()
        loop = watched.feed("abc" * 1000)

        assert loop is not None
        assert watched.feed("and now for something else") == loop

    def test_the_detector_uses_bounded_memory(self) -> None:
        watched = LoopWatch()
        for number in range(20_000):
            watched.feed(f"{number * number} ")

        assert len(watched._text) <= 12_000
        assert len(watched._figures) <= 12_000


class TestPages:
    @pytest.mark.parametrize("name", PAGES)
    def test_a_page_that_only_looks_like_a_loop_is_left_alone(self, name: str) -> None:
        assert watch(PAGES[name]) == (None, len(PAGES[name]))
        assert watch(BEFORE + PAGES[name] + BEFORE)[0] is None

    def test_the_texts_of_the_corpus(self, corpus: Path) -> None:
        # Given each, once and twice
        texts = {path.name: path.read_text(encoding="utf-8") for path in sorted((corpus / "gt").iterdir())}

        # Then none is a loop
        assert len(texts) == 13
        assert {name: loop for name, text in texts.items() if (loop := watch(text)[0])} == {}
        assert {name: loop for name, text in texts.items() if (loop := watch(text * 2)[0])} == {}

    def test_the_text_layers_of_the_corpus(self, corpus: Path) -> None:
        # Given the pages of every PDF that has text: tables with zeros, forms, contents, mathematics
        pages = dict(text_layers(corpus))

        # Then none is a loop
        assert len(pages) > 100
        assert {page: loop for page, text in pages.items() if (loop := watch(text)[0])} == {}


unit = st.text(min_size=1, max_size=300)


class TestProperties:
    @given(pieces=st.lists(st.integers(1, 700), min_size=1, max_size=20), looping=st.sampled_from(LOOPS))
    @settings(max_examples=40, deadline=None)
    def test_the_sizes_of_the_pieces_make_no_difference(self, pieces: list[int], looping: Looping) -> None:
        text = looping.text
        expected, _ = watch(text, size=len(text))
        watched, begin, found = LoopWatch(), 0, None
        while begin < len(text) and found is None:
            size = pieces[begin % len(pieces)]
            found = watched.feed(text[begin : begin + size])
            begin += size

        assert found == expected is not None

    @given(before=st.text(max_size=800), unit=unit)
    @settings(max_examples=150, deadline=None)
    def test_any_unit_that_continues_to_repeat_is_a_loop(self, before: str, unit: str) -> None:
        text = before + unit * (12_000 // len(unit))
        loop, fed = watch(text)

        # Then it is detected, and starts where the text starts to repeat: at most one copy after the true start
        assert loop is not None
        assert loop.start <= len(before) + len(unit)
        assert fed - len(before) <= 10_500

    @given(data=st.data())
    @settings(max_examples=100, deadline=None)
    def test_up_to_three_repetitions_are_no_loop(self, data: st.DataObject) -> None:
        # Given blocks that repeat up to three times in a row, each with its own first word
        blocks = data.draw(st.lists(st.tuples(st.text("ab .|\n", max_size=300), st.integers(1, 3)), max_size=30))
        words = ("".join(chr(97 + ord(c) - 48) for c in f"{number:05}") for number in range(7, 10_000, 13))
        text = "".join(
            f"{word} {_without_runs(block)} " * times for (block, times), word in zip(blocks, words, strict=False)
        )

        assert watch(text)[0] is None


def _without_runs(text: str) -> str:
    """Remove runs: put a letter between any two characters."""
    return "".join(f"{sign}{chr(99 + at * at % 20)}{chr(99 + at // 7 % 20)}" for at, sign in enumerate(text))
