"""The identity of a fleet, in its store and in its Redis: who finds them different refuses to start, and takes no job."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ocrfleet import keys
from ocrfleet.broker.celery_app import publish_intake
from ocrfleet.errors import EXIT_CONFIGURATION, ConfigurationError
from ocrfleet.metrics.exposition import Exposition
from ocrfleet.records.documents import DocumentStatus
from ocrfleet.settings import Settings
from ocrfleet.storage.fleet_identity import FleetIdentity, check_fleet, claim_redis
from ocrfleet.storage.store import FolderStore
from producer.control.controller import Controller
from producer.control.process import control_plane
from producer.intake.consumer import COMMAND
from tests.support.servers import Valkey
from tests.support.stage import Stage
from tests.support.waiting import until


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

    # And another store is refused, one that no fleet has used, which stays as it is, and one of another fleet
    for check in (check_fleet, claim_redis):
        with pytest.raises(ConfigurationError, match=f"OCRFLEET_STORE is wrong.* remove its key {keys.REDIS_FLEET}"):
            check(other, redis)
    assert not other.exists(keys.FLEET)
    other.create(keys.FLEET, FleetIdentity(id="0" * 32).to_bytes())
    for check in (check_fleet, claim_redis):
        with pytest.raises(
            ConfigurationError, match=f"OCRFLEET_STORE or OCRFLEET_REDIS_URL is wrong.*{keys.REDIS_FLEET}"
        ):
            check(other, redis)


def test_a_process_with_another_store_does_not_lead(tmp_path: Path, valkey: Valkey) -> None:
    # Given a control plane that could not reach Redis when it started, and a Redis that another fleet has claimed since
    claim_redis(FolderStore(tmp_path / "first"), valkey.client)
    refused = threading.Event()
    settings = Settings(store=str(tmp_path / "second"), redis_url=valkey.url)
    controller = Controller(settings, FolderStore(tmp_path / "second"), refused.set)
    # When it becomes the leader
    controller.start()
    # Then it says so and ends, and the leadership is free
    until(refused.is_set, seconds=30)
    controller.stop()
    assert isinstance(controller.failure, ConfigurationError)
    assert valkey.client.get(keys.REDIS_DISPATCHER) is None


def test_a_second_fleet_on_one_redis_does_not_start(tmp_path: Path, valkey: Valkey) -> None:
    first, second = (Settings(store=str(tmp_path / name), redis_url=valkey.url) for name in ("first", "second"))

    def started(settings: Settings) -> AbstractContextManager[None]:
        store = FolderStore(Path(settings.store))
        return control_plane(settings, store, consumers=0, exposition=Exposition(settings), on_failure=lambda: None)

    with started(first):
        with (
            pytest.raises(ConfigurationError, match="it is not the store of the fleet at OCRFLEET_REDIS_URL"),
            started(second),
        ):
            pass
        # The first one goes on, and a second process of it may start
        with started(first):
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


def test_an_intake_consumer_gives_back_the_batches_of_another_fleet(stage: Stage, tmp_path: Path) -> None:
    # Given an intake consumer that started before the control plane had, with another store
    log = tmp_path / "intake.log"
    environment = {"OCRFLEET_REDIS_URL": stage.valkey.url, "OCRFLEET_STORE": str(tmp_path / "stroe")}
    with log.open("ab") as written:
        wrong = subprocess.Popen(COMMAND, env=os.environ | environment, stderr=written, stdout=written)
    try:
        until(lambda: "intake_consumer.ready" in log.read_text())
        claim_redis(stage.store, stage.valkey.client)

        # When a batch is to be taken in
        publish_intake(stage.app, [keys.arrival("bulk", "default", "1", "2")])

        # Then it ends, and the batch waits for another
        until(lambda: wrong.poll() is not None, otherwise=log.read_text)
        assert wrong.returncode == EXIT_CONFIGURATION
        assert "OCRFLEET_STORE is wrong" in log.read_text()
        until(lambda: stage.valkey.client.llen(keys.QUEUE_INTAKE) == 1)
    finally:
        wrong.kill()
        wrong.wait()
