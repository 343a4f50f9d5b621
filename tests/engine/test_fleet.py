"""Real vLLM engines in worker processes on a real Valkey: no fault of an engine loses a page."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ocrfleet import keys
from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import Profile
from ocrfleet.records.documents import DocumentStatus
from ocrfleet.records.pages import PageResult
from tests.support.servers import Valkey
from tests.support.stage import Stage
from tests.support.vllm.running import PATIENCE, gone
from tests.support.waiting import scaled


def engine_process(stage: Stage, name: str) -> psutil.Process | None:
    """The process of that name of any of the stage's workers."""
    for worker in stage.workers:
        if worker.poll() is None:
            for child in psutil.Process(worker.pid).children(recursive=True):
                if child.name().startswith(f"VLLM::{name}"):
                    return child
    return None


def finish(stage: Stage, *documents: object, workers: int = 1) -> list[DocumentStatus]:
    return [status.status for status in stage.finish(*documents, workers=workers, seconds=PATIENCE)]  # type: ignore[arg-type]


@pytest.mark.timeout(600)
def test_a_killed_engine_and_one_that_hangs_cost_no_page(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCRFLEET_VLLM_SILENCE_SECONDS", "8")
    book = stage.register("book", list(range(60)), pages_per_job=4)
    # Given an engine with pages of a document in flight
    stage.keep_workers(1)
    stage.await_(lambda: len(stage.stored(book)) >= 5, seconds=PATIENCE)
    before = set(stage.stored(book))
    # When its core is killed
    core = engine_process(stage, "EngineCor")
    assert core is not None
    core.kill()
    # Then its worker exits with EXIT_BROKEN, and the supervisor restarts it
    stage.await_(lambda: stage.workers[0].poll() is not None, seconds=30)
    assert stage.workers[0].returncode == 70
    stage.keep_workers(1)
    stage.await_(lambda: len(stage.stored(book)) >= len(before) + 5, seconds=PATIENCE)
    # When the process that computes is stopped, which vLLM does not notice
    computing = engine_process(stage, "Worker")
    assert computing is not None
    computing.suspend()
    stage.await_(lambda: stage.workers[1].poll() is not None, seconds=60)
    assert stage.workers[1].returncode == 70
    assert gone([computing.pid], within=5)  # killed, stopped as it was
    # Then the document completes, and no page has a fault
    assert finish(stage, book) == [DocumentStatus.COMPLETED]
    assert len(stage.stored(book)) == 60
    assert before <= set(stage.stored(book))


@pytest.mark.timeout(600)
def test_two_profiles_are_served_at_once_and_each_reads_its_own(
    tmp_path: Path, valkey: Valkey, tiny: Callable[..., Profile]
) -> None:
    # Given a worker of each of two modes, and a document for each
    profiles = [tiny(mode="tiny"), tiny(mode="small")]
    stage = Stage(tmp_path, valkey, profile=profiles[0])
    try:
        for profile in profiles:
            stage.start_worker(profile)
        documents = []
        for number, profile in enumerate(profiles):
            stage.profile = profile
            documents.append(stage.register(f"book{number}", list(range(10)), pages_per_job=4))
        assert finish(stage, *documents, workers=0) == [DocumentStatus.COMPLETED] * 2
        # Then each was read in its own mode, to the last page
        for document, profile in zip(documents, profiles, strict=True):
            for page in range(1, 11):
                stored = PageResult.from_bytes(stage.store.get(keys.page_done(document.document, page)))
                assert stored.profile == profile.name
                assert stored.text.strip()
        assert {state.profile for state in stage.ledger.workers()} == {profile.name for profile in profiles}
    finally:
        stage.close()


@pytest.mark.timeout(900)
def test_a_page_that_kills_its_engine_ends_alone(
    tmp_path: Path, valkey: Valkey, tiny: Callable[..., Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCRFLEET_VLLM_MAX_NUM_SEQS", "100")
    # Given 100 pages in flight, one of which kills the engine again and again
    profile = tiny(mode="tiny", max_tokens=4, engine="killing:KillingVllmEngine")
    stage = Stage(tmp_path, valkey, profile=profile)
    stage.plan["kill"] = [42]
    try:
        book = stage.register("book", list(range(100)), pages_per_job=10)
        (status,) = stage.finish(book, workers=1, seconds=600)
        # Then it is quarantined with the cause, and the other 99 are done
        assert status.status is DocumentStatus.PARTIAL
        assert [(failure.page, failure.reason) for failure in status.failures] == [(43, Reason.WORKER_DIED)]
        assert status.done == 99
        # And the engine died four times: twice among many, twice alone
        assert [worker.wait() for worker in stage.workers if worker.poll() is not None] == [70] * 4
        assert stage.recognised().count(42) == 4
    finally:
        stage.close()


@pytest.mark.timeout(600)
def test_a_signal_to_the_whole_group_drains(
    tmp_path: Path, valkey: Valkey, tiny: Callable[..., Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker with a page in each of two places, and more on the queue
    monkeypatch.setenv("OCRFLEET_VLLM_MAX_NUM_SEQS", "2")
    stage = Stage(tmp_path, valkey, profile=tiny(mode="tiny", max_tokens=200))
    try:
        book = stage.register("book", list(range(40)), pages_per_job=1)
        stage.keep_workers(1)
        stage.await_(lambda: len(stage.stored(book)) >= 2, seconds=PATIENCE)
        worker = stage.workers[0]
        engines = psutil.Process(worker.pid).children(recursive=True)
        # When its process group gets the signal of a terminal or a service manager
        os.killpg(worker.pid, signal.SIGTERM)
        # Then it exits with code 0, no process is left, and its pages in flight are stored
        assert worker.wait(timeout=scaled(60)) == 0
        assert gone([engine.pid for engine in engines], within=10)
        log = stage.logs()
        assert "engine died" not in log
        assert "worker.broken" not in log
        assert valkey.client.hlen(keys.UNACKED) == 0
        left = {"ocrfleet:inflight" in name.decode() for name in valkey.client.keys("*")}  # type: ignore[union-attr]
        assert left == {False}, "a page is still in the hand of a worker that has gone"
        stored = len(stage.stored(book))
        assert stored < 40
        # And another worker takes over
        assert finish(stage, book) == [DocumentStatus.COMPLETED]
    finally:
        stage.close()


def test_a_worker_that_cannot_start_reports_it_and_takes_no_job(
    tmp_path: Path, valkey: Valkey, tiny: Callable[..., Profile]
) -> None:
    profile = tiny(mode="tiny").model_copy(update={"model_path": tmp_path / "nowhere"})
    stage = Stage(tmp_path, valkey, profile=profile)
    try:
        book = stage.register("book", [1, 2])
        worker = stage.start_worker()
        stage.await_(lambda: worker.poll() is not None, seconds=120)
        assert worker.returncode == 78
        last = stage.logs().strip().splitlines()[-1]
        assert "worker.cannot_start" in last
        assert "nowhere" in last
        assert stage.stored(book) == []
        assert valkey.client.hlen(keys.UNACKED) == 0
    finally:
        stage.close()
