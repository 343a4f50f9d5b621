"""The identity of a fleet, in its store and in its Redis: who finds them different refuses to start, and takes no job."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError
from ocrfleet.metrics.exposition import Exposition
from ocrfleet.records.documents import DocumentStatus
from ocrfleet.settings import Settings
from ocrfleet.storage.fleet_identity import check_fleet, claim_redis
from ocrfleet.storage.store import FolderStore
from producer.control.process import control_plane
from tests.support.servers import Valkey
from tests.support.stage import Stage


def test_a_store_and_its_redis_have_one_identity(tmp_path: Path, valkey: Valkey) -> None:
    store, other, redis = FolderStore(tmp_path / "store"), FolderStore(tmp_path / "other"), valkey.client
    # A Redis that is new is of no other fleet
    check_fleet(store, redis)

    # Once a control plane has started, all is well with its store, also after Redis was wiped, and with a copy of the store
    for _ in range(2):
        claim_redis(store, redis)
        check_fleet(store, redis)
        redis.flushall()
        check_fleet(store, redis)
    claim_redis(store, redis)
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    check_fleet(FolderStore(tmp_path / "copy"), redis)

    # And another store is refused, one that no fleet has used, and one of another fleet
    with pytest.raises(ConfigurationError, match="OCRFLEET_STORE is wrong"):
        check_fleet(other, redis)
    with pytest.raises(ConfigurationError, match="OCRFLEET_STORE or OCRFLEET_REDIS_URL is wrong"):
        claim_redis(other, redis)
    with pytest.raises(ConfigurationError, match=keys.REDIS_FLEET):
        check_fleet(other, redis)


def test_a_second_fleet_on_one_redis_does_not_start(tmp_path: Path, valkey: Valkey) -> None:
    first, second = (Settings(store=str(tmp_path / name), redis_url=valkey.url) for name in ("first", "second"))

    def started(settings: Settings) -> object:
        store = FolderStore(Path(settings.store))
        return control_plane(settings, store, consumers=0, exposition=Exposition(settings), on_failure=lambda: None)

    with started(first):  # type: ignore[attr-defined]
        with pytest.raises(ConfigurationError, match="Each fleet needs a Redis database of its own"), started(second):  # type: ignore[attr-defined]
            pass
        # The first one goes on, and a second process of it may start
        with started(first):  # type: ignore[attr-defined]
            pass


def test_a_worker_with_another_store_takes_no_job(stage: Stage, tmp_path: Path) -> None:
    # Given a fleet, and a worker whose store has a typo in its name
    claim_redis(stage.store, stage.valkey.client)
    book = stage.register("a", [1])
    wrong = stage.start_worker(OCRFLEET_STORE=str(tmp_path / "stroe"))

    # Then it refuses to start, says which setting is wrong, and takes no job
    stage.await_(lambda: wrong.poll() is not None)
    assert wrong.returncode == 78
    assert "OCRFLEET_STORE is wrong" in stage.logs()
    (status,) = stage.finish(book, workers=1)
    assert status.status is DocumentStatus.COMPLETED


def test_a_worker_gives_back_the_jobs_of_another_fleet(stage: Stage, tmp_path: Path) -> None:
    # Given a worker that started before the control plane had, with another store
    wrong = stage.start_worker(OCRFLEET_STORE=str(tmp_path / "stroe"))
    stage.await_(lambda: "worker.ready" in stage.logs())
    claim_redis(stage.store, stage.valkey.client)

    # When a document is dispatched
    book = stage.register("a", [1])
    stage.dispatcher.tick()

    # Then the worker takes no job as done, and ends
    stage.await_(lambda: wrong.poll() is not None)
    assert "job.document_gone" not in stage.logs()
    (status,) = stage.finish(book, workers=1)
    assert status.status is DocumentStatus.COMPLETED
