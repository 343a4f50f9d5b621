"""Metrics of real processes: a supervisor and its workers, serve and its intake consumers, dispatch, watch."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client import REGISTRY

from ocrfleet.broker.celery_app import queue_names
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import SourceReference, SubmissionOptions
from ocrfleet.sources.sources import uri_of
from producer.intake.batches import IntakeBatches
from producer.intake.scheduler import IntakeScheduler
from producer.state.profiles import save_profile
from tests.support.fakes.numbered import write_book
from tests.support.scrape import Scrape, scrape, scraped
from tests.support.servers import FAKES, Moto, Valkey, free_ports
from tests.support.stage import ENGINE, Stage
from tests.support.waiting import scaled, until

_COMMAND = str(Path(sys.executable).with_name("ocrfleet"))


class Role:
    """A running command of ocrfleet with its metrics port."""

    def __init__(self, stage: Stage, *command: str, port: int, **environ: str) -> None:
        plan = stage.folder / "plan.json"
        plan.write_text(json.dumps(stage.plan))
        self.port = port
        self.log = (stage.folder / f"{command[0]}-{port}.log").open("w+")
        self.process = subprocess.Popen(
            [_COMMAND, *command],
            env={
                **os.environ,
                "PYTHONPATH": str(FAKES),
                "OCRFLEET_TEST_PLAN": str(plan),
                "OCRFLEET_REDIS_URL": stage.valkey.url,
                "OCRFLEET_STORE": str(stage.settings.store),
                "OCRFLEET_CACHE": str(stage.settings.cache),
                "OCRFLEET_LEASE_SECONDS": str(stage.settings.lease_seconds),
                "OCRFLEET_METRICS_PORT": str(port),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    def children(self, module: str) -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in found if child.is_running() and child.cmdline()[-1:] == [module]]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(scaled(120))

    def close(self) -> None:
        if self.process.poll() is None:
            self.end()
        self.log.close()


@pytest.fixture
def roles() -> Iterator[list[Role]]:
    started: list[Role] = []
    yield started
    for role in started:
        role.close()


def start(roles: list[Role], stage: Stage, *command: str, **environ: str) -> Role:
    (port,) = free_ports(1)
    role = Role(stage, *command, port=port, **environ)
    roles.append(role)
    return role


def done(page: Scrape) -> float:
    return page.sum("ocrfleet_pages_total", status="done")


def test_a_supervisor_sums_the_metrics_of_its_living_and_dead_workers(stage: Stage, roles: list[Role]) -> None:
    # Given two worker processes, of which one is killed between two documents
    stage.plan["fail"] = [7]
    worker = start(roles, stage, "worker", "--engine", ENGINE, "--processes", "2", OCRFLEET_PRICE_PER_GPU_HOUR="2.5")
    scraped(worker.port, lambda page: page.values("ocrfleet_engine_slots") == [2])
    first = stage.register("first", list(range(1, 21)))
    stage.finish(first)
    before = scraped(worker.port, lambda page: done(page) == 19)
    victim = worker.children("worker")[0]
    victim.kill()
    scraped(
        worker.port,
        lambda page: page.sum("ocrfleet_engine_restarts_total") == 1 and page.values("ocrfleet_engine_slots") == [2],
    )

    # When the fleet has read another one
    stage.finish(stage.register("second", list(range(30, 41)), queue=Priority.INTERACTIVE))
    page = scraped(worker.port, lambda page: done(page) >= 30)

    # Then the sums include the pages of all processes
    assert before.sum("ocrfleet_engine_restarts_total") == 0
    assert done(page) == 30
    assert page.sum("ocrfleet_pages_total", queue="interactive", verdict="believed", engine=ENGINE) == 11
    assert page.sum("ocrfleet_pages_total", status="failed", verdict="engine_failed") == 1
    assert page.sum("ocrfleet_page_retries_total", reason="engine_failed") == 1
    for name in ("fetch", "render", "recognise"):
        assert page.sum("ocrfleet_stage_seconds_count", stage=name) == 32
    assert page.sum("ocrfleet_stage_seconds_count", stage="store") == 31
    # Two concurrent last pages may each publish an assembly job
    assert page.sum("ocrfleet_stage_seconds_count", stage="assemble") >= 2
    # And no page is in flight
    assert page.values("ocrfleet_engine_requests", state="running") == [0]
    assert page.values("ocrfleet_engine_slots") == [2]
    assert page.values("ocrfleet_price_per_gpu_hour") == [2.5]
    assert page.values("ocrfleet_build_info") == [1]
    assert page.sum("process_resident_memory_bytes") > 0
    scraped(worker.port, lambda page: page.sum("ocrfleet_engine_busy_seconds_total") > 0)
    # A worker does not export the gauges of the leader
    assert page.values("ocrfleet_leader") == []
    assert worker.end() == 0


def test_a_leader_tells_of_the_whole_fleet(stage: Stage, roles: list[Role]) -> None:
    # Given a leader, documents without a worker, and an intake batch for its consumer
    token = "t" * 32
    (port,) = free_ports(1)
    save_profile(stage.store, stage.profile)
    begun = time.time()
    serving = start(roles, stage, "serve", "--engine", ENGINE, "--port", str(port), OCRFLEET_API_TOKENS=token)
    path = write_book(stage.folder / "arriving.tif", [1, 2, 3])
    wish = SourceReference(
        name="arriving", uri=uri_of(path), size=path.stat().st_size, mtime_ns=path.stat().st_mtime_ns
    )
    IntakeBatches(stage.store).add(
        SubmissionOptions(profile_digest=stage.profile.digest, queue=Priority.BULK, collection="c"), [wish]
    )

    waiting = scraped(serving.port, lambda page: page.sum("ocrfleet_backlog_pages", queue="bulk", state="queued") == 3)

    assert waiting.values("ocrfleet_leader") == [1]
    assert waiting.values("ocrfleet_intake_seconds_count") == [1]
    assert waiting.values("ocrfleet_documents", state="active") == [1]
    # The assumed speed of one worker: there is none
    assert waiting.values("ocrfleet_backlog_seconds", queue="bulk") == [3 / stage.settings.pages_per_second]
    assert waiting.values("ocrfleet_fleet_pages_per_second") == [0]
    assert waiting.sum("ocrfleet_oldest_waiting_seconds", queue="bulk") > 0
    assert waiting.values("ocrfleet_oldest_waiting_seconds", queue="interactive") == [0]
    assert waiting.sum("ocrfleet_redis_memory_used_bytes") > 0
    assert waiting.sum("ocrfleet_workers") == 0
    # When they are read
    start(roles, stage, "worker", "--engine", ENGINE)
    ended = scraped(serving.port, lambda page: page.sum("ocrfleet_documents_ended_total", status="completed") == 1)
    # Then their end and their turnaround are counted
    assert ended.values("ocrfleet_turnaround_seconds_count", queue="bulk") == [1]
    assert 0 < ended.sum("ocrfleet_turnaround_seconds_sum", queue="bulk") < time.time() - begun
    after = scraped(serving.port, lambda page: page.sum("ocrfleet_backlog_pages") == 0)
    assert after.values("ocrfleet_workers", profile=stage.profile.name) == [1]
    # And an upload event is counted by its source
    headers = {"Authorization": f"Bearer {token}"}
    httpx.post(f"http://127.0.0.1:{port}/v1/events/s3", content=b"{}", headers=headers, timeout=scaled(30))
    assert scrape(serving.port).values("ocrfleet_events_total", source="webhook", outcome="unparsable") == [1]
    # And clients of the API don't get at the metrics
    assert httpx.get(f"http://127.0.0.1:{port}/metrics", headers=headers, timeout=scaled(30)).status_code == 404


def test_a_process_that_does_not_lead_exposes_no_fleet_metrics(stage: Stage, roles: list[Role]) -> None:
    leading, other = (start(roles, stage, "dispatch", "--clerks", "0") for _ in range(2))
    for role in (leading, other):
        scraped(role.port, lambda page: page.values("ocrfleet_leader"))

    def leader_of_both() -> Role | None:
        """Return the leader, once it exports the fleet gauges and the other process does not."""
        pages = {role: scrape(role.port) for role in (leading, other)}
        telling = [role for role, page in pages.items() if page.values("ocrfleet_backlog_pages")]
        leads = [role for role, page in pages.items() if page.values("ocrfleet_leader") == [1]]
        return leads[0] if len(leads) == 1 and telling == leads else None

    leader = until(leader_of_both, seconds=120)
    follower = other if leader is leading else leading
    # When the leader exits, the other one exports the same values
    assert leader.end() == 0
    page = scraped(follower.port, lambda page: page.values("ocrfleet_backlog_pages"))
    assert page.values("ocrfleet_leader") == [1]


def test_a_lease_that_runs_out_and_a_redis_that_is_away_are_counted(
    tmp_path: Path, valkey: Valkey, roles: list[Role]
) -> None:
    # Given a lease longer than the five seconds between two checks of the leader
    stage = Stage(tmp_path, valkey, lease_seconds=scaled(14))
    try:
        lease_and_redis(stage, roles)
    finally:
        stage.close()


def lease_and_redis(stage: Stage, roles: list[Role]) -> None:
    # And a worker that dies with a page in flight
    stage.plan |= {"wait": [5], "until": str(stage.folder / "never")}
    leader = start(roles, stage, "dispatch", "--clerks", "0")
    stage.register("one", [5])
    dying = stage.start_worker()
    scraped(leader.port, lambda page: page.sum("ocrfleet_backlog_pages", state="running") == 1)
    dying.kill()
    # When another worker takes over
    stage.plan = {}
    stage.start_worker()
    page = scraped(leader.port, lambda page: page.sum("ocrfleet_documents_ended_total") == 1)
    page = scraped(leader.port, lambda page: page.sum("ocrfleet_leases_expired_total") >= 1)
    assert page.values("ocrfleet_leases_expired_total") == [1]
    assert page.values("ocrfleet_redis_errors_total") == [0]
    # And a Redis outage is visible, while the fleet gauges disappear
    stage.valkey.kill()
    page = scraped(
        leader.port,
        lambda page: page.sum("ocrfleet_redis_errors_total") > 0 and not page.values("ocrfleet_backlog_pages"),
    )
    stage.valkey.start()


def test_republished_jobs_are_counted_by_kind(stage: Stage) -> None:
    # Given two page jobs, an assembly job and an intake job that the broker lost
    def published_again() -> list[float]:
        kinds = ("page", "assembly", "intake")
        return [REGISTRY.get_sample_value("ocrfleet_republished_total", {"kind": kind}) or 0.0 for kind in kinds]

    before = published_again()
    save_profile(stage.store, stage.profile)
    now = [0.0]
    receiver = IntakeScheduler(stage.store, stage.ledger, stage.app, clock=lambda: now[0])
    path = write_book(stage.folder / "a.tif", [1])
    wish = SourceReference(name="a.tif", uri=uri_of(path), size=path.stat().st_size)
    IntakeBatches(stage.store).add(
        SubmissionOptions(profile_digest=stage.profile.digest, queue=Priority.BULK, collection="c"), [wish]
    )
    receiver.tick()
    pages, whole = stage.register("pages", [1, 2]), stage.register("whole", [3])
    stage.dispatcher.tick()
    stage.ledger.mark(whole.document, 1, [1])
    stage.valkey.client.delete("intake", *queue_names(stage.profile.name))
    assert published_again() == before
    # When the sweep runs
    for _ in range(3):
        stage.sweep.run()
        receiver.tick()
        now[0] += 10
    # Then all of them are published again, and counted
    assert [now - then for now, then in zip(published_again(), before, strict=True)] == [2, 1, 1]
    assert pages.total == 2


def test_a_watcher_exposes_its_counts_and_last_success(stage: Stage, roles: list[Role], moto: Moto) -> None:
    bucket = f"inbox-{secrets.token_hex(5)}"
    moto.s3.create_bucket(Bucket=bucket)
    moto.s3.put_object(Bucket=bucket, Key="a.pdf", Body=b"%PDF")
    queue = moto.queue()
    moto.sqs.send_message(QueueUrl=queue, MessageBody="what is this?")
    begun = time.time()

    watching = start(
        roles,
        stage,
        *("watch", "--poll", f"s3://{bucket}/", "--every", "1", "--sqs", queue),
        **moto.environment,
        OCRFLEET_S3_ENDPOINT_URL=moto.endpoint,
        OCRFLEET_S3_REGION="us-east-1",
    )

    page = scraped(watching.port, lambda page: page.sum("ocrfleet_events_total") == 2)
    assert page.values("ocrfleet_events_total", source="poll", outcome="registered") == [1]
    assert page.values("ocrfleet_events_total", source="sqs", outcome="unparsable") == [1]
    assert page.values("ocrfleet_events_total", source="sqs", outcome="registered") == [0]
    (at,) = page.values("ocrfleet_watch_last_success_timestamp_seconds", source="poll")
    assert begun <= at <= time.time()
    assert watching.end() == 0


def test_a_port_that_can_not_be_had_ends_the_command(stage: Stage, roles: list[Role]) -> None:
    first = start(roles, stage, "dispatch", "--clerks", "0")
    scraped(first.port, lambda _: True)
    second = Role(stage, "dispatch", "--clerks", "0", port=first.port)
    roles.append(second)
    assert second.process.wait(scaled(120)) == 3
