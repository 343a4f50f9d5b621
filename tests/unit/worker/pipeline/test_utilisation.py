"""Utilisation of an engine, by a clock that the test advances."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrfleet.profiles.profile import RAPIDOCR
from worker.pipeline.utilisation import Utilisation


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def fed(*, slots: int = 1) -> tuple[Clock, Utilisation]:
    clock = Clock()
    return clock, Utilisation(worker="w", profile=RAPIDOCR, slots=slots, clock=clock)


def seconds(feed: Utilisation) -> tuple[float, float, float]:
    state = feed.state()
    return state.seconds, state.busy_seconds, state.starved_seconds


def test_an_idle_worker_counts_no_busy_or_idle_seconds() -> None:
    clock, feed = fed()
    clock.passes(60)
    assert seconds(feed) == (60, 0, 0)
    state = feed.state()
    assert (state.worker, state.profile, state.profile_digest) == ("w", "rapidocr", RAPIDOCR.digest)
    assert (state.pages, state.tokens) == (0, 0)


def test_it_starves_while_pages_are_made_ready_and_the_engine_has_none() -> None:
    clock, feed = fed()
    with feed.preparing():
        clock.passes(2)
        # A read in between includes the time up to now
        assert seconds(feed) == (2, 2, 2)
        clock.passes(1)
    clock.passes(10)
    assert seconds(feed) == (13, 3, 3)


def test_it_is_busy_while_it_has_a_page_in_hand() -> None:
    clock, feed = fed()
    with feed.recognising():
        clock.passes(4)
    clock.passes(1)
    assert seconds(feed) == (5, 4, 0)


def test_a_full_engine_does_not_starve_whoever_waits() -> None:
    clock, feed = fed()
    with feed.preparing(), feed.recognising():
        clock.passes(5)
    assert seconds(feed) == (5, 5, 0)


def test_an_engine_with_a_free_slot_is_busy_and_starves_at_the_same_time() -> None:
    clock, feed = fed(slots=2)
    with feed.preparing(), feed.recognising():
        clock.passes(3)
        with feed.recognising():
            clock.passes(5)
        # Two with the engine: more would not help
        with feed.recognising(), feed.recognising():
            clock.passes(7)
    assert seconds(feed) == (15, 15, 3)


def test_a_page_passes_from_being_made_ready_to_the_engine() -> None:
    # As worker/pipeline/page.py does it: the stack is closed once the engine takes the page, and again at the end
    clock, feed = fed()
    with ExitStack() as making_ready:
        making_ready.enter_context(feed.preparing())
        clock.passes(1)
        making_ready.close()
        with feed.recognising():
            clock.passes(10)
    clock.passes(100)
    assert seconds(feed) == (111, 11, 1)


def test_time_is_counted_where_a_page_fails_too() -> None:
    clock, feed = fed()

    def fails(block: AbstractContextManager[None]) -> None:
        with block:
            clock.passes(2)
            raise ZeroDivisionError

    for block in (feed.preparing(), feed.recognising()):
        with pytest.raises(ZeroDivisionError):
            fails(block)
    clock.passes(9)
    assert seconds(feed) == (13, 4, 2)
    assert feed.state().pages == 0


def test_pages_and_tokens_are_counted() -> None:
    _, feed = fed()
    for tokens in (100, None, 5):
        feed.add_tokens(tokens)
        feed.add_page()
    assert (feed.state().pages, feed.state().tokens) == (3, 105)


def test_a_clock_without_progress_counts_no_seconds() -> None:
    _, feed = fed()
    with feed.preparing(), feed.recognising():
        feed.add_tokens(7)
        feed.add_page()
    assert seconds(feed) == (0, 0, 0)


@given(
    slots=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from(["ready", "engine", "less"]), st.integers(0, 9)), max_size=30),
)
def test_no_second_is_counted_twice(slots: int, steps: list[tuple[str, int]]) -> None:
    clock, feed = fed(slots=slots)
    open_blocks: list[ExitStack] = []
    for what, passed in steps:
        if what != "less":
            stack = ExitStack()
            stack.enter_context(feed.preparing() if what == "ready" else feed.recognising())
            open_blocks.append(stack)
        elif open_blocks:
            open_blocks.pop(0).close()
        clock.passes(passed)
    in_all, busy, starved = seconds(feed)
    assert in_all == sum(passed for _, passed in steps)
    assert 0 <= busy <= in_all
    assert 0 <= starved <= in_all
    for stack in open_blocks:
        stack.close()
    clock.passes(1000)
    assert seconds(feed)[1:] == (busy, starved)
