"""A worker in a fleet: it takes jobs in time, drains, and routes pages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocrfleet import keys
from ocrfleet.broker.celery_app import publish_pages, queue_names
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.broker.ledger import Faults
from ocrfleet.errors import EXIT_BROKEN, EXIT_CONFIGURATION
from ocrfleet.profiles.profile import Profile, Route, resolve
from ocrfleet.records.documents import DocumentStatus
from producer.monitoring.status import fleet_status
from tests.support.desk import COMMAND
from tests.support.servers import Valkey
from tests.support.stage import Stage
from tests.support.waiting import rest, scaled

OTHER = resolve("numbered:OtherEngine")
#: Maximum number of pages in flight of a worker with WideEngine: four slots, two prefetched by the engine, one for a renderer.
CAPACITY = 4 + 2 + 1


def numbers(start: int, count: int) -> list[int]:
    return list(range(start, start + count))


def routed(profile: Profile, *routes: Route) -> Profile:
    return Profile.model_validate(profile.model_dump() | {"routes": routes})


@pytest.fixture
def wide(tmp_path: Path, valkey: Valkey) -> Iterator[Stage]:
    made = Stage(tmp_path, valkey, engine="numbered:WideEngine")
    made.plan["until"] = str(tmp_path / "until")
    yield made
    made.close()


# ---- routing


@pytest.mark.parametrize(
    "route",
    [Route(to=OTHER.name, kinds=("tiff",)), Route(to=OTHER.name, max_ink=0.5, max_inches=4)],
    ids=["by kind", "by ink and size"],
)
def test_pages_are_read_by_the_profile_that_a_rule_sends_them_to(stage: Stage, route: Route) -> None:
    # Given a profile that sends its pages to another, which is served but at something else for now
    stage.profile = routed(stage.profile, Route(to="nobody", min_inches=40), route)
    stage.plan |= {"wait": numbers(0, 10), "until": str(stage.folder / "until")}
    stage.start_worker(OTHER)
    stage.await_(lambda: [state.profile for state in stage.ledger.workers()] == [OTHER.name])
    stage.start_worker()
    # When a document comes
    book = stage.register("a", numbers(0, 10), pages_per_job=4)
    queues = queue_names(stage.profile.name)
    stage.await_(lambda: stage.recognised() and stage.dispatcher.active)
    stage.await_(lambda: MessageInspector(stage.valkey.client).waiting([stage.profile.name]) == {stage.profile.name: 0})
    stage.await_(lambda: len(waiting_or_leased(stage)) == 10 and all(job.routed for job in jobs(stage, queues)))
    # Then its pages are published for the other once, by any sweep
    assert [stage.sweep.run() for _ in range(3)] == [0, 0, 0]
    assert len(waiting_or_leased(stage)) == len(set(waiting_or_leased(stage))) == 10
    (stage.folder / "until").touch()
    (status,) = stage.finish(book)
    # And each is read by it, once, in its place
    assert status.status is DocumentStatus.COMPLETED
    assert sorted(stage.recognised()) == numbers(0, 10)
    assert {stage.result(book, page).profile for page in range(1, 11)} == {OTHER.name}
    assert [stage.text(book, page) for page in (1, 10)] == ["page number 0", "page number 9"]
    stage.await_(lambda: stage.valkey.client.hlen(keys.UNACKED) == 0)
    assert waiting_or_leased(stage) == []


def jobs(stage: Stage, queues: list[str] | None = None) -> list:  # type: ignore[type-arg]
    return MessageInspector(stage.valkey.client).jobs(
        queues or [*queue_names(stage.profile.name), *queue_names(OTHER.name)]
    )[0]


def waiting_or_leased(stage: Stage) -> list[int]:
    return [page for job in jobs(stage) for page in range(job.first, job.last + 1)]


def test_pages_stay_with_their_profile_if_no_worker_serves_the_other(stage: Stage) -> None:
    stage.profile = routed(stage.profile, Route(to=OTHER.name, kinds=("tiff",)))
    book = stage.register("a", numbers(0, 6), pages_per_job=4)
    (status,) = stage.finish(book, workers=1)
    assert status.status is DocumentStatus.COMPLETED
    assert sorted(stage.recognised()) == numbers(0, 6)
    assert {stage.result(book, page).profile for page in range(1, 7)} == {stage.profile.name}


def test_pages_that_no_rule_fits_stay(stage: Stage) -> None:
    stage.profile = routed(stage.profile, Route(to=OTHER.name, kinds=("pdf",)))
    stage.start_worker(OTHER)
    stage.await_(stage.ledger.workers)
    book = stage.register("a", numbers(0, 3))
    stage.finish(book, workers=2)
    assert {stage.result(book, page).profile for page in range(1, 4)} == {stage.profile.name}


def test_a_failed_routed_page_is_reported_with_the_other_profile(stage: Stage) -> None:
    stage.profile = routed(stage.profile, Route(to=OTHER.name, kinds=("tiff",)))
    stage.plan["fail"] = [1]
    stage.start_worker(OTHER)
    stage.await_(stage.ledger.workers)
    stage.start_worker()
    book = stage.register("a", numbers(0, 3), pages_per_job=3)
    (status,) = stage.finish(book)
    assert (status.done, [failure.page for failure in status.failures]) == (2, [2])
    # Two attempts, as the settings say, and both by the other
    assert sorted(stage.recognised()) == [0, 1, 1, 2]


# ---- how much a worker takes


def test_a_worker_takes_no_more_jobs_than_it_has_room_for(wide: Stage) -> None:
    # Given a worker whose engine is slow, and far more jobs than it can take
    wide.plan["seconds"] = 0.3
    book = wide.register("a", numbers(0, 32), pages_per_job=4)
    # By its profile it knows how many pages a job has that is on its way.
    wide.start_worker(wide.profile.model_copy(update={"pages_per_job": 4}))
    most = 0
    # When it works
    while len(wide.stored(book)) < 12:
        wide.tick()
        leased = {page for _, page in wide.leased()}
        terminal = wide.ledger.terminal(book.document, 1) or set()
        most = max(most, len(leased - terminal))
        rest(0.01)
    # Then it keeps what fills its engine, and leaves the rest to others
    assert CAPACITY <= most <= CAPACITY + 4 - 1
    # And others take it
    wide.finish(book, workers=2)
    assert sorted(wide.recognised()) == numbers(0, 32)


def test_a_slow_page_leaves_no_slot_idle(wide: Stage) -> None:
    # Given a job with a page that does not end
    wide.plan["wait"] = [3]
    book = wide.register("a", numbers(0, 40), pages_per_job=8)
    wide.start_worker()
    # Then everything else is read beside it
    wide.await_(lambda: len(wide.stored(book)) == 39)
    assert not wide.store.exists(keys.page_done(book.document, 4))
    (wide.folder / "until").touch()
    (status,) = wide.finish(book)
    assert status.status is DocumentStatus.COMPLETED
    assert sorted(wide.recognised()) == numbers(0, 40)


def test_an_engine_gets_at_most_its_number_of_simultaneous_pages(wide: Stage) -> None:
    wide.plan["wait"] = numbers(0, 12)
    book = wide.register("a", numbers(0, 12), pages_per_job=4)
    wide.start_worker()
    wide.await_(lambda: len(wide.recognised()) == 6)
    rest(0.3)
    assert len(wide.recognised()) == 6
    (wide.folder / "until").touch()
    wide.finish(book)


# ---- how it leaves


def test_a_drained_worker_returns_a_hanging_page_without_counting_a_fault(wide: Stage) -> None:
    # Given a page that hangs, and others that are short or were not begun
    wide.plan |= {"hang": [3], "seconds": 0.3}
    book = wide.register("a", numbers(0, 30), pages_per_job=6)
    first = wide.start_worker(OCRFLEET_DRAIN_SECONDS="1")
    wide.await_(lambda: len(wide.stored(book)) >= 3 and 3 in wide.recognised())  # two jobs' pages come in any order
    # When the worker gets SIGTERM
    first.send_signal(signal.SIGTERM)
    # Then it does so soon after its time to drain, although the page never ends
    assert first.wait(timeout=scaled(20)) == 0, wide.logs()
    # And its pages in flight are stored, except for the hanging page: it is requeued without a fault
    begun = set(wide.recognised())
    assert {f"{number + 1:06d}.json" for number in begun} - set(wide.stored(book)) == {"000004.json"}
    assert wide.valkey.client.hlen(keys.UNACKED) == 0
    assert wide.valkey.client.hlen(keys.redis_inflight(book.document, 1)) == 0
    assert set(wide.faults(book).values()) == {Faults()}
    assert wide.ledger.workers() == []
    # And another worker reads it, and the rest
    wide.plan["hang"] = []
    (status,) = wide.finish(book, workers=1)
    assert status.status is DocumentStatus.COMPLETED
    assert sorted(wide.recognised()) == sorted([*numbers(0, 30), 3])


def test_a_broken_engine_counts_against_the_pages_that_it_had_and_no_other(wide: Stage) -> None:
    # Given an engine that breaks with one page, and others in flight
    wide.plan |= {"break": [9], "seconds": 0.3}
    book = wide.register("a", numbers(0, 30), pages_per_job=2)
    first = wide.start_worker()
    wide.await_(lambda: wide.dispatcher.active)
    assert first.wait(timeout=scaled(30)) == EXIT_BROKEN, wide.logs()
    # Then each page in flight gets one death, and pages that were not started get none
    unread = {number + 1 for number in wide.recognised()} - {int(name[:6]) for name in wide.stored(book)}
    faults = wide.faults(book)
    assert {page for page, known in faults.items() if known.deaths} == unread
    assert 10 in unread
    assert 2 <= len(unread) <= 6
    assert {known.deaths for known in faults.values()} == {0, 1}
    assert {(known.attempts, known.deaths_alone) for known in faults.values()} == {(0, 0)}
    # And another worker finishes
    wide.plan["break"] = []
    (status,) = wide.finish(book, workers=1)
    assert status.status is DocumentStatus.COMPLETED
    assert (status.done, status.failures) == (30, ())


def test_a_worker_that_may_go_on_no_more_ends_for_good_and_blames_no_page(wide: Stage) -> None:
    # Given an engine that has a limit to what it may read
    wide.plan |= {"limit": 10, "seconds": 0.3}
    book = wide.register("a", numbers(0, 30), pages_per_job=3)
    first = wide.start_worker()
    wide.await_(lambda: wide.dispatcher.active)
    # Then the worker ends as one that is of no use to start again
    assert first.wait(timeout=scaled(30)) == EXIT_CONFIGURATION, wide.logs()
    assert "it may read no more" in wide.logs()
    # And pages that were read are stored, the others are given back, and nothing is held against any
    assert len(wide.stored(book)) == 10
    assert wide.valkey.client.hlen(keys.redis_inflight(book.document, 1)) == 0
    assert set(wide.faults(book).values()) == {Faults()}
    assert wide.ledger.workers() == []
    assert wide.valkey.client.hlen(keys.UNACKED) == 0
    # And another worker goes on with them
    del wide.plan["limit"]
    (status,) = wide.finish(book, workers=1)
    assert status.status is DocumentStatus.COMPLETED


def test_a_worker_at_its_limit_finishes_its_begun_pages(wide: Stage) -> None:
    # Given a limit that is reached while another page is being read
    wide.plan |= {"limit": 6, "wait": [0]}
    book = wide.register("a", numbers(0, 12))
    first = wide.start_worker()
    wide.await_(lambda: "it may read no more" in wide.logs())
    rest(1.5)
    # Then the worker does not count as dead, and takes no more jobs
    assert len(wide.ledger.workers()) == 1
    assert set(wide.faults(book).values()) == {Faults()}
    assert len(wide.leased()) <= CAPACITY
    # And the page is stored before it ends
    (wide.folder / "until").touch()
    assert first.wait(timeout=scaled(20)) == EXIT_CONFIGURATION, wide.logs()
    assert wide.stored(book)[0] == "000001.json"
    assert len(wide.stored(book)) == 6


# ---- what is known of workers


def test_status_lists_workers_and_jobs_without_a_worker(stage: Stage) -> None:
    # Given jobs of a profile that no worker serves, and of one with a name that everybody knows
    own = stage.register("a", numbers(0, 3))
    stage.profile, numbered = resolve("tesseract"), stage.profile
    stage.register("b", numbers(10, 2))
    stage.profile = numbered
    stage.dispatcher.tick()
    environment = {**os.environ, "OCRFLEET_REDIS_URL": stage.valkey.url, "OCRFLEET_STORE": str(stage.settings.store)}

    def status(*options: str) -> str:
        command = [*COMMAND, "status", *options]
        answer = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=scaled(30), check=True
        )
        return " ".join(answer.stdout.split())

    # Then the status says so, and how to help
    rows = {row["profile"]: row for row in fleet_status(stage.settings)["profiles"]}
    assert rows == {
        numbered.name: {
            "profile": numbered.name,
            "workers": 0,
            "documents": 1,
            "jobs_queued": 3,
            "served": False,
        },
        "tesseract": {"profile": "tesseract", "workers": 0, "documents": 1, "jobs_queued": 2, "served": False},
    }
    told = status()
    assert "No worker serves tesseract: 2 jobs wait. Start a worker: ocrfleet worker --profile tesseract" in told
    # … in words that do help: a profile that was made of options is not found by its name
    assert f"No worker serves {numbered.name}: 3 jobs wait." in told
    assert f"--profile {numbered.name}" not in told
    assert "No worker is registered" in told
    # And that no process registers, dispatches and delivers
    assert "No process leads: start ocrfleet serve or dispatch" in told
    stage.valkey.client.set(keys.REDIS_DISPATCHER, "somebody")
    assert "No process leads" not in status()
    # When workers come
    stage.finish(own, workers=2)
    stage.await_(lambda: sum(state.pages for state in stage.ledger.workers()) == 3)
    # Then they are seen, with what they have done
    states = stage.ledger.workers()
    assert {state.profile for state in states} == {numbered.name}
    assert {state.profile_digest for state in states} == {numbered.digest}
    assert all(state.seconds > 0 for state in states)
    assert sum(state.busy_seconds for state in states) > 0
    facts = json.loads(status("--json"))
    row = next(row for row in facts["profiles"] if row["profile"] == numbered.name)
    assert (row["workers"], row["served"], row["jobs_queued"]) == (2, True, 0)
    assert sum(worker["pages"] for worker in facts["workers"]) == 3
    assert f"No worker serves {numbered.name}" not in status()
    # And one that was killed is forgotten with its lease
    stage.workers[0].kill()
    stage.await_(lambda: len(stage.ledger.workers()) == 1)


def test_a_job_delivered_twice_is_read_once(wide: Stage) -> None:
    # Given jobs that are published again while a worker has them, again and again
    wide.plan["seconds"] = 0.2
    book = wide.register("a", numbers(0, 16), pages_per_job=4)
    wide.start_worker()
    wide.await_(lambda: len(wide.stored(book)) >= 1)
    jobs, _ = MessageInspector(wide.valkey.client).jobs([])
    assert jobs
    for _ in range(3):
        publish_pages(wide.app, wide.profile.name, jobs)
    # Then each page is read once, and every copy ends
    (status,) = wide.finish(book)
    assert status.status is DocumentStatus.COMPLETED
    assert sorted(wide.recognised()) == numbers(0, 16)
    wide.await_(lambda: wide.valkey.client.hlen(keys.UNACKED) == 0)
    assert wide.valkey.client.llen(keys.queue_pages("bulk", wide.profile.name)) == 0
