"""Clients take turns at the probes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from producer.intake import probes as module
from producer.intake.probes import Probes
from tests.support.waiting import until


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Probes]:
    """Two of them."""
    monkeypatch.setattr(module, "_MOST", 2)
    with closing(Probes(memory=1 << 20)) as made:
        yield made


@pytest.fixture
def begin(probes: Probes) -> Iterator[Callable[[str, list[str]], threading.Event]]:
    """Starts a thread of a client that notes its turn, and holds the probe until its event is set."""
    threads: list[tuple[threading.Thread, threading.Event]] = []

    def start(client: str, order: list[str]) -> threading.Event:
        done = threading.Event()

        def work() -> None:
            with probes.taken(client):
                order.append(client)
                done.wait()

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: client in [*probes._waiting.values(), *probes._held])
        threads.append((thread, done))
        return done

    yield start
    for thread, done in threads:
        done.set()
        thread.join()


def test_a_client_leaves_a_probe_to_the_others(
    probes: Probes, begin: Callable[[str, list[str]], threading.Event]
) -> None:
    # Given a client with many uploads
    order: list[str] = []
    for _ in range(4):
        begin("greedy", order)
    # When another one comes, then it does not wait for any of them
    begin("other", order)
    until(lambda: len(order) == 2)
    assert order == ["greedy", "other"]


def test_clients_take_turns(probes: Probes, begin: Callable[[str, list[str]], threading.Event]) -> None:
    # Given two clients that hold both probes, and one of them waits with three more
    order: list[str] = []
    first = begin("a", order)
    begin("b", order)
    for _ in range(3):
        begin("a", order)
    # And a third one comes last
    last = begin("c", order)
    # When a probe is free, then it is the turn of the client that had none
    first.set()
    until(lambda: len(order) == 3)
    last.set()
    until(lambda: len(order) == 4)
    assert order == ["a", "b", "c", "a"]


def test_clients_without_a_name_use_all_probes(probes: Probes) -> None:
    with ExitStack() as stack:
        taken = {id(stack.enter_context(probes.taken(""))) for _ in range(2)}
    assert len(taken) == 2
    assert not probes._held
    assert not probes._turns
