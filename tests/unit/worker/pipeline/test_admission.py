"""Admission: never more pages or pixels than allowed, first come first served, a large page alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.waiting import scaled
from worker.pipeline.admission import Admission, Place


class Yard:
    """Pages that are admitted, stay until released, and record the order of admission."""

    def __init__(self, *, pages: int = 3, pixels: int = 100) -> None:
        self.admission = Admission(pages=pages, pixels=pixels)
        self.entered: list[str] = []
        self.inside: dict[str, Place] = {}
        self._leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, *, pixels: int = 10, alone: bool = False) -> None:
        self._leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, pixels, alone))
        await settle()

    async def _stay(self, name: str, pixels: int, alone: bool) -> None:  # noqa: FBT001
        async with self.admission.place(pixels=pixels, alone=alone) as place:
            self.entered.append(name)
            self.inside[name] = place
            try:
                await self._leave[name].wait()
            finally:
                del self.inside[name]

    async def go(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
        await settle()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self.tasks[name]
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, timeout=scaled(10)))


def test_so_many_pages_and_no_more() -> None:
    async def test() -> None:
        yard = Yard(pages=2)
        for name in "abc":
            await yard.come(name)
        assert yard.entered == ["a", "b"]
        assert yard.admission.waiting == 1
        await yard.go("a")
        assert yard.entered == ["a", "b", "c"]
        assert yard.admission.waiting == 0

    run(test())


def test_so_many_pixels_and_no_more() -> None:
    async def test() -> None:
        yard = Yard(pages=9, pixels=100)
        for name, pixels in (("a", 60), ("b", 40), ("c", 1)):
            await yard.come(name, pixels=pixels)
        assert yard.entered == ["a", "b"]
        await yard.go("b")
        assert yard.entered == ["a", "b", "c"]

    run(test())


def test_a_page_larger_than_the_limit_is_admitted_by_itself() -> None:
    async def test() -> None:
        yard = Yard(pixels=100)
        await yard.come("small")
        await yard.come("huge", pixels=500)
        assert yard.entered == ["small"]
        await yard.go("small")
        await yard.come("after", pixels=0)
        assert yard.entered == ["small", "huge"]
        await yard.go("huge")
        assert yard.entered == ["small", "huge", "after"]

    run(test())


def test_a_page_that_needs_the_worker_for_itself_gets_it_and_is_not_starved() -> None:
    async def test() -> None:
        yard = Yard(pages=3)
        await yard.come("a")
        await yard.come("alone", alone=True)
        # There would be room for those that come after it, but it was first
        await yard.come("b")
        await yard.come("c")
        assert list(yard.inside) == ["a"]
        await yard.go("a")
        assert list(yard.inside) == ["alone"]
        await yard.go("alone")
        assert list(yard.inside) == ["b", "c"]
        assert yard.entered == ["a", "alone", "b", "c"]

    run(test())


def test_two_that_want_to_be_alone_take_turns() -> None:
    async def test() -> None:
        yard = Yard()
        await yard.come("a", alone=True)
        await yard.come("b", alone=True)
        assert list(yard.inside) == ["a"]
        await yard.go("a")
        assert list(yard.inside) == ["b"]

    run(test())


def test_first_come_first_served_also_for_the_large() -> None:
    async def test() -> None:
        yard = Yard(pages=9, pixels=100)
        await yard.come("a", pixels=60)
        await yard.come("large", pixels=80)
        await yard.come("small", pixels=1)
        assert yard.entered == ["a"]
        await yard.go("a")
        assert yard.entered == ["a", "large", "small"]

    run(test())


def test_a_page_that_takes_less_than_was_feared_lets_others_in() -> None:
    async def test() -> None:
        yard = Yard(pixels=100)
        await yard.come("a", pixels=100)
        await yard.come("b", pixels=50)
        assert yard.entered == ["a"]
        yard.admission.resize(yard.inside["a"], 50)
        await settle()
        assert yard.entered == ["a", "b"]

    run(test())


@pytest.mark.parametrize("alone", [False, True])
def test_a_cancelled_waiter_is_removed(alone: bool) -> None:  # noqa: FBT001
    async def test() -> None:
        yard = Yard(pages=2)
        await yard.come("a")
        await yard.come("gone", pixels=95, alone=alone)
        await yard.come("b")
        assert yard.entered == ["a"]
        # When the first waiting page is cancelled
        await yard.cancel("gone")
        # Then the one behind it is let in, at once
        assert yard.entered == ["a", "b"]
        assert yard.admission.waiting == 0

    run(test())


def test_a_page_cancelled_at_its_admission_frees_its_slot() -> None:
    async def test() -> None:
        yard = Yard(pages=1)
        async with yard.admission.place(pixels=1, alone=False):
            await yard.come("b")
            await yard.come("c")
        # When a page has been given its place and is cancelled before it has noticed
        assert yard.admission.waiting == 1
        await yard.cancel("b")
        # Then the next one has it
        assert yard.entered == ["c"]

    run(test())


def test_an_error_inside_leaves_no_place_taken() -> None:
    async def test() -> None:
        yard = Yard(pages=1)
        with pytest.raises(ZeroDivisionError):
            async with yard.admission.place(pixels=1, alone=True):
                raise ZeroDivisionError
        await yard.come("a")
        assert yard.entered == ["a"]

    run(test())


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(0, 150), st.booleans()),
        st.tuples(st.just("go"), st.integers(0, 50), st.just(False)),
        st.tuples(st.just("cancel"), st.integers(0, 50), st.just(False)),
        st.tuples(st.just("resize"), st.integers(0, 50), st.just(False)),
    ),
    max_size=40,
)


@given(moves=MOVES, pages=st.integers(1, 4))
def test_whatever_happens_the_limits_hold_and_all_get_in_at_last(
    moves: list[tuple[str, int, bool]], pages: int
) -> None:
    async def test() -> None:
        yard = Yard(pages=pages, pixels=100)
        wants_alone: dict[str, bool] = {}

        def check() -> None:
            inside = yard.inside
            assert len(inside) <= pages
            assert len(inside) <= 1 or sum(place.pixels for place in inside.values()) <= 100
            assert len(inside) <= 1 or not any(wants_alone[name] for name in inside)
            # If no page is admitted, no page waits
            assert inside or not yard.admission.waiting

        for number, (move, value, alone) in enumerate(moves):
            there = [name for name, task in yard.tasks.items() if not task.done()]
            if move == "come":
                wants_alone[str(number)] = alone
                await yard.come(str(number), pixels=value, alone=alone)
            elif move == "resize":
                for name in list(yard.inside)[:1]:
                    yard.admission.resize(yard.inside[name], min(value, yard.inside[name].pixels))
                    await settle()
            elif there:
                name = there[value % len(there)]
                await (yard.go(name) if move == "go" else yard.cancel(name))
            check()
        # In the order in which they came
        assert yard.entered == sorted(yard.entered, key=int)
        for name in list(yard.tasks):
            await yard.go(name)
        assert all(task.done() for task in yard.tasks.values())
        assert (yard.admission.waiting, yard.inside) == (0, {})

    run(test())
