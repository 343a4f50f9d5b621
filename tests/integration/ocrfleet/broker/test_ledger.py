"""The ledger on a real Valkey: bits and faults."""

from __future__ import annotations

import pytest

from ocrfleet.broker.ledger import Faults, Hold, Ledger, Mark, process_name
from ocrfleet.errors import TransientError
from ocrfleet.records.workers import WorkerState
from tests.support.servers import Valkey
from tests.support.waiting import rest

DOCUMENT = "0" * 32
DIGEST = "0" * 64


@pytest.fixture
def ledger(valkey: Valkey) -> Ledger:
    return Ledger(valkey.url)


def test_a_ledger_without_a_total_answers_unknown_and_stores_nothing(ledger: Ledger) -> None:
    assert ledger.mark(DOCUMENT, 1, [1]) is Mark.UNKNOWN
    assert ledger.terminal(DOCUMENT, 1) is None
    assert ledger.progress([(DOCUMENT, 1)]) == [None]
    assert ledger.redis.dbsize() == 0


def test_marking_the_last_page_reports_it_each_time(ledger: Ledger) -> None:
    ledger.seed(DOCUMENT, 1, total=3, done=[], failed=[])
    assert ledger.mark(DOCUMENT, 1, [3]) is Mark.OPEN
    assert ledger.mark(DOCUMENT, 1, [3]) is Mark.OPEN
    assert ledger.mark(DOCUMENT, 1, [1, 2]) is Mark.LAST
    assert ledger.mark(DOCUMENT, 1, []) is Mark.LAST


def test_a_repeated_failure_counts_once_and_a_seed_only_adds(ledger: Ledger) -> None:
    ledger.seed(DOCUMENT, 1, total=10, done=[2], failed=[5])
    ledger.mark(DOCUMENT, 1, [7], failed=True)
    ledger.mark(DOCUMENT, 1, [7], failed=True)
    ledger.seed(DOCUMENT, 1, total=10, done=[2, 3], failed=[5])
    (progress,) = ledger.progress([(DOCUMENT, 1)])
    assert progress is not None
    assert (progress.total, progress.terminal, progress.failed, progress.published) == (10, 4, 2, 0)
    assert ledger.terminal(DOCUMENT, 1) == {2, 3, 5, 7}


def test_progress_tells_published_pages_that_are_terminal_from_those_beyond(ledger: Ledger) -> None:
    ledger.seed(DOCUMENT, 1, total=10, done=[1, 9], failed=[])
    ledger.published(DOCUMENT, 1, 4)
    (progress,) = ledger.progress([(DOCUMENT, 1)])
    assert progress is not None
    assert (progress.terminal, progress.terminal_published) == (2, 1)


def test_generations_do_not_touch_each_other(ledger: Ledger) -> None:
    ledger.seed(DOCUMENT, 1, total=1, done=[1], failed=[])
    ledger.seed(DOCUMENT, 2, total=1, done=[], failed=[])
    assert ledger.terminal(DOCUMENT, 2) == set()
    ledger.forget(DOCUMENT, 1)
    assert ledger.terminal(DOCUMENT, 1) is None
    assert ledger.terminal(DOCUMENT, 2) == set()


@pytest.mark.parametrize(("first", "last"), [(1, 20), (1, 7), (7, 8), (8, 8), (9, 16), (15, None), (17, 40), (41, 50)])
def test_a_range_of_a_document_is_asked_for_by_itself(ledger: Ledger, first: int, last: int | None) -> None:
    marked = {1, 7, 8, 15, 16, 17, 20}
    ledger.seed(DOCUMENT, 1, total=50, done=marked, failed=[])
    wanted = {page for page in marked if first <= page <= (last or 50)}
    assert ledger.terminal(DOCUMENT, 1, first=first, last=last) == wanted


def test_every_key_of_a_document_expires(ledger: Ledger) -> None:
    ledger.seed(DOCUMENT, 1, total=2, done=[], failed=[])
    ledger.mark(DOCUMENT, 1, [1])
    ledger.hold(DOCUMENT, 1, 2, worker="a", alone=False)
    ledger.fault(DOCUMENT, 1, 2, "engine_failed")
    names = ledger.redis.keys("ocrfleet:*")
    assert len(names) == 4
    assert all(ledger.redis.ttl(name) > 0 for name in names)


def test_pages_held_by_a_worker_without_heartbeat_count_a_death(ledger: Ledger) -> None:
    ledger.hold(DOCUMENT, 1, 5, worker="a", alone=False)
    assert ledger.inspect(DOCUMENT, 1, 5, worker="b") == Faults(deaths=1)
    # Counted once, however often `inspect` is called.
    assert ledger.inspect(DOCUMENT, 1, 5, worker="b") == Faults(deaths=1)
    ledger.hold(DOCUMENT, 1, 5, worker="b", alone=True)
    assert ledger.inspect(DOCUMENT, 1, 5, worker="c") == Faults(deaths=1, deaths_alone=1)


def test_a_page_held_by_a_living_worker_or_by_itself_counts_no_death(ledger: Ledger) -> None:
    ledger.heartbeat(WorkerState(worker="a", profile="p", profile_digest=DIGEST), 30)
    ledger.hold(DOCUMENT, 1, 5, worker="a", alone=False)
    assert ledger.inspect(DOCUMENT, 1, 5, worker="b") == Faults()
    ledger.leave("a")
    assert ledger.inspect(DOCUMENT, 1, 5, worker="a") == Faults()
    assert ledger.inspect(DOCUMENT, 1, 5, worker="b") == Faults(deaths=1)


def test_heartbeats_list_living_workers_and_dead_ones_are_removed(ledger: Ledger) -> None:
    ledger.heartbeat(WorkerState(worker="a", profile="p", profile_digest=DIGEST, pages=3), 30)
    ledger.heartbeat(WorkerState(worker="b", profile="q", profile_digest=DIGEST), 0.05)
    assert [(state.profile, state.pages) for state in ledger.workers()] == [("p", 3), ("q", 0)]
    rest(0.1)
    assert [state.worker for state in ledger.workers()] == ["a"]
    assert ledger.redis.smembers("ocrfleet:workers") == {b"a"}
    ledger.leave("a")
    assert ledger.workers() == []


def test_a_page_is_held_by_at_most_one_living_worker(ledger: Ledger) -> None:
    ledger.seed(DOCUMENT, 1, total=9, done=[], failed=[])
    for worker in "ab":
        ledger.heartbeat(WorkerState(worker=worker, profile="p", profile_digest=DIGEST), 30)
    # Given a page in flight at one worker: another worker does not get it, the same worker may take it again
    assert ledger.hold(DOCUMENT, 1, 5, worker="a", alone=False) is Hold.HELD
    assert ledger.hold(DOCUMENT, 1, 5, worker="b", alone=False) is Hold.TAKEN
    assert ledger.hold(DOCUMENT, 1, 5, worker="a", alone=False) is Hold.HELD
    # When it dies, the other one gets it, and the death is counted
    ledger.leave("a")
    assert ledger.hold(DOCUMENT, 1, 5, worker="b", alone=False) is Hold.HELD
    assert ledger.inspect(DOCUMENT, 1, 5, worker="b") == Faults(deaths=1)
    # And no worker gets a terminal page
    ledger.mark(DOCUMENT, 1, [5])
    assert ledger.hold(DOCUMENT, 1, 5, worker="b", alone=False) is Hold.TAKEN
    # For an unknown document, the result is UNKNOWN
    assert ledger.hold(DOCUMENT, 2, 5, worker="b", alone=False) is Hold.UNKNOWN


def test_a_recorded_exit_is_reported_to_the_worker_that_finds_its_pages(ledger: Ledger) -> None:
    worker = f"{process_name(4711)}.0123"
    ledger.hold(DOCUMENT, 1, 5, worker=worker, alone=True)
    ledger.record_exit(4711, "killed by SIGKILL")
    assert ledger.inspect(DOCUMENT, 1, 5, worker="b") == Faults(deaths_alone=1, death="killed by SIGKILL")


def test_one_of_several_sweeps_publishes_a_document_again(ledger: Ledger) -> None:
    assert ledger.may_publish_again(DOCUMENT, 1, 0.1)
    assert not ledger.may_publish_again(DOCUMENT, 1, 0.1)
    assert ledger.may_publish_again(DOCUMENT, 2, 0.1)
    rest(0.15)
    assert ledger.may_publish_again(DOCUMENT, 1, 0.1)


def test_a_released_page_is_held_by_no_worker(ledger: Ledger) -> None:
    ledger.hold(DOCUMENT, 1, 5, worker="a", alone=False)
    ledger.release(DOCUMENT, 1, 5)
    assert ledger.inspect(DOCUMENT, 1, 5, worker="b") == Faults()


@pytest.mark.parametrize("known", [True, False])
def test_marking_a_page_releases_it_and_no_other(ledger: Ledger, *, known: bool) -> None:
    if known:
        ledger.seed(DOCUMENT, 1, total=9, done=[], failed=[])
    for page in (5, 6):
        ledger.hold(DOCUMENT, 1, page, worker="a", alone=False)
    ledger.mark(DOCUMENT, 1, [5])
    assert ledger.inspect_all(DOCUMENT, 1, [5, 6], worker="b") == {5: Faults(), 6: Faults(deaths=1)}


def test_the_pages_of_a_job_are_inspected_at_once(ledger: Ledger) -> None:
    # Given a page with which a worker died, one in flight at a running worker, one with a fault, and another one
    ledger.heartbeat(WorkerState(worker="alive", profile="p", profile_digest=DIGEST), 30)
    ledger.hold(DOCUMENT, 1, 1, worker="dead", alone=True)
    ledger.hold(DOCUMENT, 1, 2, worker="alive", alone=False)
    ledger.fault(DOCUMENT, 1, 3, "engine_failed")
    # Then each has its own faults, a death is counted once, and no pages have none
    for _ in range(2):
        assert ledger.inspect_all(DOCUMENT, 1, [1, 2, 3, 4], worker="b") == {
            1: Faults(deaths_alone=1),
            2: Faults(),
            3: Faults(attempts=1, reason="engine_failed"),
            4: Faults(),
        }
    assert ledger.inspect_all(DOCUMENT, 1, [], worker="b") == {}


def test_own_faults_are_counted(ledger: Ledger) -> None:
    assert [ledger.fault(DOCUMENT, 1, page, "engine_failed", "it said no") for page in (5, 5, 6)] == [1, 2, 1]
    assert ledger.inspect(DOCUMENT, 1, 5, worker="a") == Faults(attempts=2, reason="engine_failed", detail="it said no")


def test_a_server_that_is_away_is_a_transient_error(valkey: Valkey, ledger: Ledger) -> None:
    valkey.kill()
    with pytest.raises(TransientError):
        ledger.mark(DOCUMENT, 1, [1])
