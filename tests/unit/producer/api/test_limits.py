"""Limits that clients share, and the speed at which a body must arrive."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from starlette.requests import Request
from starlette.types import Message

from producer.api import bodies
from producer.api.limits import ConcurrencyLimit
from producer.api.problems import ProblemError


def take(limit: ConcurrencyLimit, client: str, stack: ExitStack) -> int:
    """Take slots for a client until it is refused; return how many it got."""
    for taken in range(100):
        try:
            stack.enter_context(limit.taken(client))
        except ProblemError:
            return taken
    raise AssertionError


def test_no_client_takes_the_slots_of_the_others() -> None:
    # Given a client that takes all the slots that it can get
    limit = ConcurrencyLimit(16, "uploads")
    with ExitStack() as stack:
        assert take(limit, "greedy", stack) == 12
        # Then others still get some, and the slots are never more than sixteen
        assert take(limit, "second", stack) == 3
        assert take(limit, "third", stack) == 1
        assert take(limit, "fourth", stack) == 0
    # And all of them are free at the end
    with ExitStack() as stack:
        assert take(limit, "second", stack) == 12


@pytest.mark.parametrize("count", [1, 2, 16])
def test_where_clients_have_no_name_there_are_slots_for_one(count: int) -> None:
    with ExitStack() as stack:
        assert take(ConcurrencyLimit(count, "uploads"), "", stack) == count


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_slots_are_all_usable(count: int) -> None:
    with ExitStack() as stack:
        assert take(ConcurrencyLimit(count, "uploads"), "a", stack) == count


def body(*pieces: bytes) -> Request:
    arriving = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]

    async def receive() -> Message:
        await asyncio.sleep(0)
        return arriving.pop(0) if arriving else {"type": "http.request", "body": b"", "more_body": False}

    return Request({"type": "http", "method": "POST", "headers": [], "path": "/"}, receive)


def test_a_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given no grace, and a minimum that no client can keep
    monkeypatch.setattr(bodies, "_GRACE", 0.0)
    monkeypatch.setattr(bodies, "_SLOWEST", 1e12)
    with pytest.raises(ProblemError) as caught:
        asyncio.run(bodies.small(body(b"a", b"b"), limit=100))
    assert (caught.value.status, caught.value.headers) == (408, {"Connection": "close"})
    # Then a faster body is received
    monkeypatch.setattr(bodies, "_SLOWEST", 0)
    assert asyncio.run(bodies.small(body(b"a", b"b"), limit=100)) == b"ab"


def test_a_client_that_is_slow_for_a_moment_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_SLOWEST", 1e12)
    assert asyncio.run(bodies.small(body(b"a", b"b"), limit=100)) == b"ab"
