"""Time left: one estimate for every command, gauge and page of the API."""

from __future__ import annotations

from ocrfleet.records.workers import WorkerState
from producer.state.speed import time_left

FAST, SLOW, UNSERVED = "f" * 64, "5" * 64, "0" * 64


def worker(name: str, digest: str, *, pages: int, busy: float) -> WorkerState:
    return WorkerState(worker=name, profile=name, profile_digest=digest, pages=pages, busy_seconds=busy)


def test_the_slowest_profile_decides() -> None:
    # Given two workers that read two pages a second in all, and one of another profile that takes ten seconds a page
    workers = [worker("a", FAST, pages=100, busy=100.0), worker("b", FAST, pages=100, busy=100.0)]
    workers.append(worker("c", SLOW, pages=10, busy=100.0))

    # Then each profile's pages are for its own workers
    assert time_left({FAST: 200}, workers, assumed=5.0) == 100.0
    assert time_left({FAST: 200, SLOW: 5}, workers, assumed=5.0) == 100.0
    assert time_left({FAST: 200, SLOW: 30}, workers, assumed=5.0) == 300.0


def test_a_profile_without_workers_takes_the_time_of_one() -> None:
    workers = [worker("a", FAST, pages=100, busy=100.0)]
    assert time_left({FAST: 10, UNSERVED: 100}, workers, assumed=5.0) == 20.0
    assert time_left({UNSERVED: 100}, [], assumed=5.0) == 20.0


def test_no_pages_take_no_time() -> None:
    assert time_left({}, [worker("a", FAST, pages=1, busy=1.0)], assumed=5.0) == 0.0
    assert time_left({FAST: 0}, [], assumed=5.0) == 0.0
