"""Full disks and a full Redis, and wrong clocks: the fleet waits, reports it, and continues."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ocrfleet import keys
from ocrfleet.errors import TransientError
from ocrfleet.records.documents import DocumentStatus
from tests.support.servers import SeaweedFS, Valkey
from tests.support.stage import Stage
from tests.support.waiting import rest, until


def said(stage: Stage) -> list[str]:
    """Log events of the workers with their errors."""
    lines = [line for path in stage.folder.glob("worker-*.log") for line in path.read_text().splitlines()]
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [f"{entry['event']}: {entry.get('error', '')}" for entry in entries]


def test_while_redis_is_full_workers_store_their_pages_and_producers_wait(stage: Stage) -> None:
    # Given a worker with pages of a document in flight
    stage.plan["seconds"] = 0.3
    book = stage.register("a", list(range(1, 11)))
    stage.start_worker()
    stage.await_(lambda: len(stage.stored(book)) >= 2)
    # When Redis refuses writes
    before = set(stage.recognised())
    stage.valkey.client.config_set("maxmemory", "1")
    with pytest.raises(TransientError):
        stage.ledger.published(book.document, 1, 10)
    # Then pages in flight are still stored
    until(
        lambda: before <= {int(stage.text(book, int(key[:6])).split()[-1]) for key in stage.stored(book)},
        otherwise=stage.logs,
    )
    # And when memory is free, it continues, and few pages are read twice
    stage.valkey.client.config_set("maxmemory", "0")
    (status,) = stage.finish(book)
    assert (status.status, status.done) == (DocumentStatus.COMPLETED, 10)
    assert len(stage.recognised()) <= 10 + 2


def test_while_the_store_is_full_a_worker_waits_and_reports_it(
    tmp_path: Path, valkey: Valkey, seaweed: SeaweedFS
) -> None:
    # Given a worker with a store in a bucket
    bucket = seaweed.bucket()
    hasty = seaweed.settings().model_copy(update={"attempts": 2})
    stage = Stage(tmp_path, valkey, store=f"s3://{bucket}/fleet", s3=hasty)
    try:
        stage.plan["seconds"] = 0.3
        book = stage.register("a", list(range(1, 7)))
        endpoint = {"OCRFLEET_S3_ENDPOINT_URL": seaweed.endpoint, "OCRFLEET_S3_ATTEMPTS": "2"}
        stage.start_worker(**endpoint, **seaweed.environment)  # type: ignore[arg-type]
        stage.await_(lambda: len(stage.stored(book)) >= 1)
        # When it refuses writes
        assert seaweed.fill(bucket, full=True)
        stage.await_(lambda: any("waiting: " in line and "s3://" in line for line in said(stage)))
        # Then the pages wait for it, and are read once
        assert seaweed.fill(bucket, full=False)
        (status,) = stage.finish(book)
        assert (status.status, status.done) == (DocumentStatus.COMPLETED, 6)
        assert sorted(stage.recognised()) == [1, 2, 3, 4, 5, 6]
    finally:
        seaweed.fill(bucket, full=False)
        stage.close()


def test_a_clock_set_forward_causes_no_second_reading(stage: Stage) -> None:
    # Given two workers, and a lease that has expired by a clock that is an hour ahead
    stage.plan["seconds"] = 2
    book = stage.register("a", [7])
    stage.keep_workers(2)
    stage.await_(lambda: stage.recognised() == [7])
    for _ in range(5):
        tags = stage.valkey.client.zrange(keys.UNACKED_INDEX, 0, -1)
        if tags:
            stage.valkey.client.zadd(keys.UNACKED_INDEX, dict.fromkeys(tags, time.time() - 3600), xx=True)  # type: ignore[type-var]
        rest(0.3)
    # Then other workers get its job, find the page in flight, and skip it
    (status,) = stage.finish(book)
    assert status.status is DocumentStatus.COMPLETED
    assert stage.recognised() == [7]


def test_a_clock_set_back_does_not_delay_the_jobs_of_a_dead_worker(stage: Stage) -> None:
    # Given a worker that died with a page, and its lease with a start in an hour
    stage.plan["seconds"] = 1.0
    book = stage.register("a", [1, 2, 3])
    first = stage.start_worker()
    stage.await_(lambda: len(stage.recognised()) >= 1)
    first.kill()
    first.wait()
    tags = stage.valkey.client.zrange(keys.UNACKED_INDEX, 0, -1)
    assert tags
    stage.valkey.client.zadd(keys.UNACKED_INDEX, dict.fromkeys(tags, time.time() + 3600), xx=True)  # type: ignore[type-var]
    # Then the sweep corrects it, and another worker takes over
    (status,) = stage.finish(book, workers=1, seconds=60)
    assert (status.status, status.done) == (DocumentStatus.COMPLETED, 3)
