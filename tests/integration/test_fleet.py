"""A fleet of real Celery workers on a real Valkey: no page is lost or read twice, and a bad page affects no other page."""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ocrfleet import keys
from ocrfleet.broker.celery_app import publish_pages
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import resolve
from ocrfleet.records.documents import DocumentStatus, Manifest, Marker, Status
from ocrfleet.records.messages import PageJob
from ocrfleet.records.priority import Priority
from producer.control.dispatcher import Dispatcher
from producer.control.sweep import Sweep
from tests.support.servers import Valkey
from tests.support.stage import Stage
from tests.support.waiting import scaled


def numbers(start: int, count: int) -> list[int]:
    return list(range(start, start + count))


def test_documents_are_read_once_and_in_order(stage: Stage) -> None:
    # Given two documents and two workers
    books = [stage.register("a", numbers(0, 20)), stage.register("b", numbers(100, 20), pages_per_job=8)]
    # When they work
    statuses = stage.finish(*books, workers=2)
    # Then every page is done, once, in its place
    assert [status.status for status in statuses] == [DocumentStatus.COMPLETED] * 2
    assert sorted(stage.recognised()) == numbers(0, 20) + numbers(100, 20)
    assert [stage.text(books[1], page) for page in (1, 20)] == ["page number 100", "page number 119"]
    # And no marker, message or ledger is left
    stage.await_(lambda: not list(stage.store.list(keys.ACTIVE)))
    assert not list(stage.store.list(keys.WAITING))
    stage.await_(lambda: stage.valkey.client.hlen(keys.UNACKED) == 0)
    assert [name for name in stage.valkey.client.keys("ocrfleet:*") if b"ocrfleet:worker" not in name] == []


def test_never_more_than_the_backlog_limit_is_queued(tmp_path: Path, valkey: Valkey) -> None:
    stage = Stage(tmp_path, valkey, backlog_pages=10)
    try:
        # Given one document larger than the limit and some small ones, without workers
        stage.register("large", numbers(0, 30))
        for number in range(5):
            stage.register(f"small-{number}", [number])
        queue = keys.queue_pages("bulk", stage.profile.name)
        # When the dispatcher runs
        for _ in range(5):
            stage.dispatcher.tick()
        # Then the queue has the share of one priority, and the rest waits in the store
        assert valkey.client.llen(queue) == 7
        assert len(list(stage.store.list(keys.WAITING))) >= 4
    finally:
        stage.close()


def test_collections_take_turns_and_interactive_documents_come_first(tmp_path: Path, valkey: Valkey) -> None:
    stage = Stage(tmp_path, valkey, backlog_pages=7)
    try:
        # Given a huge collection, a small one behind it, and an interactive document last
        huge = [stage.register(f"huge-{number}", [number], collection="huge") for number in range(10)]
        small = [stage.register(f"small-{number}", [100 + number], collection="small") for number in range(2)]
        fast = stage.register("fast", [200], queue=Priority.INTERACTIVE, collection="small")
        # When there are seven free places
        stage.dispatcher.tick()
        # Then the interactive document and both of the small collection are published, and the huge one gets the rest of bulk
        active = set(stage.dispatcher.active)
        assert fast.document in active
        assert {item.document for item in small} <= active
        assert len(active & {item.document for item in huge}) == 3
    finally:
        stage.close()


def test_a_wiped_redis_under_working_workers_costs_nothing(stage: Stage) -> None:
    stage.plan["seconds"] = 0.1
    book = stage.register("a", numbers(0, 40))
    stage.keep_workers(2)
    stage.await_(lambda: len(stage.stored(book)) >= 10)
    # When Redis loses everything while pages are being read
    stored = len(stage.stored(book))
    stage.valkey.client.flushall()
    (status,) = stage.finish(book, workers=2)
    # Then all pages are done, and no stored page was read again
    assert status.status is DocumentStatus.COMPLETED
    again = len(stage.recognised()) - 40
    assert again <= 8, "only pages that were in somebody's hands may be read twice"
    assert stored >= 10
    assert stage.recognised().count(stage.recognised()[0]) == 1


def test_redis_restarted_under_a_working_worker(stage: Stage) -> None:
    stage.plan["seconds"] = 0.1
    book = stage.register("a", numbers(0, 40))
    worker = stage.start_worker()
    stage.await_(lambda: len(stage.stored(book)) >= 5)
    # When the server is killed and restarted without its data
    stage.valkey.kill()
    stage.valkey.start()
    (status,) = stage.finish(book)
    # Then the same worker process continues
    assert status.status is DocumentStatus.COMPLETED
    assert worker.poll() is None


def test_messages_that_vanish_are_published_again(stage: Stage) -> None:
    book = stage.register("a", numbers(0, 6))
    stage.dispatcher.tick()
    # When the queue is lost, and only the queue
    assert stage.valkey.client.delete(keys.queue_pages("bulk", stage.profile.name)) == 1
    (status,) = stage.finish(book, workers=1)
    assert status.status is DocumentStatus.COMPLETED


def test_the_sweep_does_not_publish_queued_or_leased_jobs_again(stage: Stage) -> None:
    stage.register("a", numbers(0, 6))
    stage.dispatcher.tick()
    assert [stage.sweep.run() for _ in range(3)] == [0, 0, 0]
    jobs, _ = MessageInspector(stage.valkey.client).jobs([keys.queue_pages("bulk", stage.profile.name)])
    assert sorted(job.first for job in jobs) == numbers(1, 6)


def test_an_assembly_that_was_lost_is_asked_for_again(stage: Stage) -> None:
    # Given a document with all pages stored, and a worker that died before it published the assembly job
    book = stage.register("a", numbers(0, 2))
    stage.finish(book, workers=1)
    stage.workers[0].kill()
    stage.workers[0].wait()
    stage.store.delete(keys.status(book.document, 1))
    again = stage.register("a", [])
    stage.valkey.client.flushall()
    assert again.generation == 1
    # When `status` is read
    (status,) = stage.finish(again, workers=1)
    # Then it is assembled, and no page is read again
    assert status.status is DocumentStatus.COMPLETED
    assert len(stage.recognised()) == 2


def test_a_job_published_twice_is_read_once(stage: Stage) -> None:
    book = stage.register("a", numbers(0, 4))
    stage.dispatcher.tick()
    job = PageJob(document=book.document, generation=1, queue=Priority.BULK, first=1, last=4)
    stage.start_worker()
    stage.await_(lambda: len(stage.stored(book)) == 4)
    publish_pages(stage.app, stage.profile.name, [job])
    stage.finish(book)
    stage.await_(lambda: stage.valkey.client.llen(keys.queue_pages("bulk", stage.profile.name)) == 0)
    stage.await_(lambda: stage.valkey.client.hlen(keys.UNACKED) == 0)
    assert len(stage.recognised()) == 4


@pytest.mark.parametrize(
    ("how", "reason"),
    [("fail", Reason.ENGINE_FAILED), ("raise", Reason.INTERNAL_ERROR)],
)
def test_a_page_that_fails_by_itself_fails_alone(stage: Stage, how: str, reason: Reason) -> None:
    stage.plan[how] = [4]
    book = stage.register("a", numbers(0, 8), pages_per_job=8)
    (status,) = stage.finish(book, workers=1)
    assert status.status is DocumentStatus.PARTIAL
    assert [(failure.page, failure.reason) for failure in status.failures] == [(5, reason)]
    # It was tried as often as the settings allow, the others once
    assert stage.recognised().count(4) == 2
    assert len(stage.recognised()) == 9


def test_a_page_that_kills_its_worker_is_quarantined_and_no_other(stage: Stage) -> None:
    stage.plan["crash"] = [13]
    book = stage.register("a", numbers(0, 30), pages_per_job=4)
    (status,) = stage.finish(book, workers=2, seconds=150)
    assert status.status is DocumentStatus.PARTIAL
    assert [(failure.page, failure.reason) for failure in status.failures] == [(14, Reason.WORKER_DIED)]
    assert status.done == 29


def test_a_page_that_was_quarantined_is_tried_again_on_demand_in_a_new_generation(stage: Stage) -> None:
    stage.plan["fail"] = [1]
    book = stage.register("a", numbers(0, 3))
    stage.finish(book, workers=1)
    # Given that the cause is removed
    stage.workers[0].terminate()
    stage.workers[0].wait()
    stage.plan["fail"] = []
    assert stage.register("a", []).ended
    again = stage.register("a", [], retry_failed=True)
    assert (again.generation, again.ended) == (2, False)
    # When it is retried
    (status,) = stage.finish(again, workers=1)
    # Then only that page is read, and the first outcome is unchanged
    assert status.status is DocumentStatus.COMPLETED
    assert stage.recognised().count(0) == stage.recognised().count(2) == 1
    assert stage.store.exists(keys.status(book.document, 1))


def test_a_killed_workers_jobs_are_taken_over(stage: Stage) -> None:
    stage.plan["seconds"] = 0.3
    book = stage.register("a", numbers(0, 16))
    first = stage.start_worker()
    stage.await_(lambda: len(stage.stored(book)) >= 2)
    in_hand = {page for _, page in stage.leased()}
    first.kill()
    first.wait()
    stage.start_worker()
    # Then another worker finishes its pages within thirty seconds after the lease
    stage.await_(
        lambda: in_hand <= {int(key[:6]) for key in stage.stored(book)},
        seconds=stage.settings.lease_seconds + 30,
    )
    (status,) = stage.finish(book)
    assert status.status is DocumentStatus.COMPLETED
    assert len(stage.recognised()) <= 16 + 2


def test_a_job_ten_times_as_long_as_its_lease_is_delivered_once(tmp_path: Path, valkey: Valkey) -> None:
    stage = Stage(tmp_path, valkey, lease_seconds=scaled(2))
    try:
        # Given a page that takes ten times as long as the lease, with an idle worker waiting for it
        stage.plan["seconds"] = 10 * stage.settings.lease_seconds
        book = stage.register("a", [7])
        stage.keep_workers(2)
        deliveries: set[bytes] = set()
        stage.await_(
            lambda: (
                stage.store.exists(keys.status(book.document, 1))
                or deliveries.update(stage.valkey.client.hkeys(keys.UNACKED))  # type: ignore[arg-type, func-returns-value]
            ),
            seconds=80,
        )
        status = Status.from_bytes(stage.store.get(keys.status(book.document, 1)))
        assert status.status is DocumentStatus.COMPLETED
        # Then it was not delivered again: each delivery has its own tag, and the second one is the assembly
        assert stage.recognised() == [7]
        assert len(deliveries) <= 2
    finally:
        stage.close()


def test_leases_are_renewed_where_kombu_keeps_them(stage: Stage) -> None:
    stage.plan["seconds"] = scaled(6)
    stage.register("a", [7])
    stage.start_worker()
    stage.await_(lambda: stage.recognised() == [7])
    # keys of kombu: one leased message, with a renewed time
    (tag,) = stage.valkey.client.hkeys(keys.UNACKED)
    before = stage.valkey.client.zscore(keys.UNACKED_INDEX, tag)
    assert before is not None
    assert json.loads(stage.valkey.client.hget(keys.UNACKED, tag))[0]["properties"]["delivery_tag"] == tag.decode()  # type: ignore[arg-type, union-attr]
    stage.await_(lambda: stage.valkey.client.zscore(keys.UNACKED_INDEX, tag) > before)  # type: ignore[operator]


def test_a_drained_worker_returns_pages_that_it_has_not_begun(stage: Stage) -> None:
    stage.plan["seconds"] = 0.5
    book = stage.register("a", numbers(0, 12), pages_per_job=6)
    worker = stage.start_worker()
    stage.await_(lambda: len(stage.stored(book)) >= 1)
    # When it gets SIGTERM
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=scaled(15)) == 0
    # Then it ends well before its jobs would, and has no page in flight
    begun = len(stage.recognised())
    assert begun < 12
    assert stage.valkey.client.hlen(keys.UNACKED) == 0
    # And another worker reads the rest, each page once
    stage.finish(book, workers=1)
    assert sorted(stage.recognised()) == numbers(0, 12)


def test_a_stopped_worker_that_wakes_up_undoes_nothing(stage: Stage) -> None:
    stage.plan["seconds"] = 0.3
    book = stage.register("a", numbers(0, 10))
    first = stage.start_worker()
    stage.await_(lambda: len(stage.stored(book)) >= 2)
    # When a worker is stopped for longer than its lease, another takes over, and the first wakes up
    first.send_signal(signal.SIGSTOP)
    (status,) = stage.finish(book, workers=2)
    outputs = {key: stage.store.get(key) for key in stage.store.list(f"documents/{book.document}/")}
    first.send_signal(signal.SIGCONT)
    stage.await_(lambda: stage.valkey.client.hlen(keys.UNACKED) == 0)
    assert status.status is DocumentStatus.COMPLETED
    kept = [key for key in outputs if "/runs/" not in key]
    assert {key: stage.store.get(key) for key in kept} == {key: outputs[key] for key in kept}


def forged(stage: Stage, body: bytes, *, content_type: str = "application/json", **headers: str) -> str:
    """Return a message as whoever can write to Redis may forge it: of Celery, with this body."""
    properties = {
        "delivery_tag": str(uuid.uuid4()),
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": keys.queue_pages("bulk", stage.profile.name)},
        "body_encoding": "base64",
    }
    known = {"lang": "py", "task": "ocrfleet.pages", "id": str(uuid.uuid4())}
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": known | headers,
        "properties": properties,
    }
    return json.dumps(message)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def test_a_message_that_is_no_job_is_refused_and_the_worker_continues(stage: Stage, tmp_path: Path) -> None:
    # Given forged messages that would run a command, call a built-in task of Celery, or fill the memory; and a job of no version
    queue, ran = keys.queue_pages("bulk", stage.profile.name), tmp_path / "ran"
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    call = json.dumps([[{"task": "ocrfleet.pages", "args": [], "kwargs": {}}, [[]]], {}, embed]).encode()
    bomb = zlib.compress(bytes(64 << 20), 9)
    for message in (
        forged(stage, pickle.dumps(Evil(f"touch {ran}")), content_type="application/x-python-serialize"),
        forged(stage, f"!!python/object/apply:os.system ['touch {ran}']".encode(), content_type="application/x-yaml"),
        *(
            forged(stage, call, task=f"celery.{name}")
            for name in ("map", "starmap", "chunks", "chord_unlock", "accumulate")
        ),
        forged(stage, call, task="os.system"),
        forged(stage, bomb, compression="application/x-gzip"),
        forged(stage, b"[[" * 100_000),
    ):
        stage.valkey.client.lpush(queue, message)
    stage.app.send_task("ocrfleet.pages", args=[{"schema_version": 99, "document": "x"}], queue=queue)

    # When a document is read by the worker that gets them
    book = stage.register("a", [1])
    (status,) = stage.finish(book, workers=1)

    # Then none of them did anything
    assert status.status is DocumentStatus.COMPLETED
    assert "job.refused" in stage.logs()
    assert not ran.exists()
    assert stage.workers[0].poll() is None


@pytest.mark.parametrize("engine", ["numbered:NumberedEngine", "numbered:StubbornEngine"])
def test_a_page_that_hangs_in_the_engine_fails_and_its_neighbours_do_not(
    tmp_path: Path, valkey: Valkey, engine: str
) -> None:
    # Given an engine that hangs in one page, one that can be interrupted and one that can't
    stage = Stage(tmp_path, valkey, engine=engine, page_deadline=scaled(1.5))
    try:
        stage.plan["hang"] = [3]
        book = stage.register("a", numbers(0, 8), pages_per_job=8)
        (status,) = stage.finish(book, workers=1)
        # Then that page fails by its deadline, after the configured number of attempts
        assert [(failure.page, failure.reason) for failure in status.failures] == [(4, Reason.ENGINE_DEADLINE)]
        assert stage.recognised().count(3) == 2
        # And no other page got a fault, or was in the engine at the same time
        assert sorted(set(stage.recognised())) == numbers(0, 8)
        assert stage.overlaps() == 0
    finally:
        stage.close()


def test_a_page_that_blocks_the_whole_worker_is_quarantined_and_no_other(stage: Stage) -> None:
    stage.plan["block"] = [3]
    book = stage.register("a", numbers(0, 6))
    (status,) = stage.finish(book, workers=1, seconds=150)
    assert [(failure.page, failure.reason) for failure in status.failures] == [(4, Reason.WORKER_DIED)]


def test_an_engine_is_given_no_more_pages_at_once_than_it_takes(stage: Stage) -> None:
    stage.plan["seconds"] = 0.05
    book = stage.register("a", numbers(0, 20), pages_per_job=10)
    stage.finish(book, workers=1)
    assert stage.overlaps() == 0


def test_a_worker_reads_a_source_where_it_is_now(stage: Stage) -> None:
    # Given a document that failed because its source was gone
    book = stage.register("a", [1, 2])
    path = stage.folder / "a.tif"
    path.rename(stage.folder / "elsewhere.tif")
    (status,) = stage.finish(book, workers=1)
    assert {failure.reason for failure in status.failures} == {Reason.SOURCE_MISSING}
    # When it is registered again from its new place, and the same worker gets it
    (stage.folder / "elsewhere.tif").rename(stage.folder / "b.tif")
    again = stage.register("b", [])
    assert (again.document, again.generation) == (book.document, 2)
    (status,) = stage.finish(again, workers=1)
    assert status.status is DocumentStatus.COMPLETED


def test_a_profile_without_workers_delays_no_other(tmp_path: Path, valkey: Valkey) -> None:
    stage = Stage(tmp_path, valkey, backlog_pages=8)
    try:
        # Given a backlog limit used up by a profile without a worker, while there was no worker at all
        served = stage.profile
        stage.profile = resolve("numbered:OtherEngine")
        stage.register("other", numbers(0, 40), collection="other")
        stage.dispatcher.tick()
        stage.profile = served
        # When pages are submitted that a worker can read
        book = stage.register("a", [50], collection="small")
        stage.start_worker()
        (status,) = stage.finish(book)
        assert status.status is DocumentStatus.COMPLETED
        # Then pages without a worker wait, and no more of them are published
        assert int(valkey.client.llen(keys.queue_pages("bulk", "numbered-otherengine"))) <= 8
    finally:
        stage.close()


def test_documents_without_pages_count_towards_the_backlog(tmp_path: Path, valkey: Valkey) -> None:
    stage = Stage(tmp_path, valkey, backlog_pages=5)
    try:
        for number in range(20):
            (stage.folder / f"{number}.tif").write_bytes(b"")
            stage.register(str(number), [])
        for _ in range(3):
            stage.dispatcher.tick()
        assert len(stage.dispatcher.active) == 3  # the share of bulk of five
    finally:
        stage.close()


def test_an_assembly_message_that_is_none_is_refused(stage: Stage) -> None:
    stage.app.send_task("ocrfleet.assemble", args=[{"document": "../x"}], queue=keys.QUEUE_ASSEMBLY)
    stage.app.send_task("ocrfleet.assemble", args=["x", 1, 2], queue=keys.QUEUE_ASSEMBLY)
    book = stage.register("a", [1])
    stage.finish(book, workers=1)
    stage.await_(
        lambda: stage.valkey.client.hlen(keys.UNACKED) == 0 and not stage.valkey.client.llen(keys.QUEUE_ASSEMBLY)
    )


def test_a_damaged_marker_harms_no_other_document(stage: Stage) -> None:
    # Given two documents that were active when a producer was killed, one with a torn marker
    torn, whole = stage.register("a", [1]), stage.register("b", [2])
    stage.dispatcher.tick()
    stage.store.put(keys.active(torn.document), b"{")
    again = stage.new_dispatcher()
    # When another takes over and both are requested
    again.adopt()
    again.want(torn.document)
    # Then the intact one continues, and the damaged one is registered again
    assert list(again.active) == [whole.document]
    stage.dispatcher = again
    stage.sweep = Sweep(again, stage.store, stage.ledger, stage.app)
    assert stage.register("a", []).ended is False
    assert [status.status for status in stage.finish(torn, whole, workers=1)] == [DocumentStatus.COMPLETED] * 2


def test_a_retry_while_the_last_end_is_still_being_delivered_is_not_lost(stage: Stage) -> None:
    # Given a partly failed document with a second submission that requests delivery
    stage.plan["fail"] = [2]
    book = stage.register("a", [1, 2])
    (status,) = stage.finish(book, workers=1)
    assert status.status is DocumentStatus.PARTIAL
    stage.await_(lambda: not list(stage.store.list(keys.ACTIVE)))
    manifest = Manifest.from_bytes(stage.store.get(keys.manifest(book.document)))
    marker = Marker(
        generation=1,
        queue=Priority.BULK,
        collection="all",
        profile=manifest.profile,
        profile_digest=manifest.profile_digest,
        pages_per_job=1,
    )
    stage.store.put(keys.waiting("bulk", "all", manifest.created, book.document, 1), marker.to_bytes())
    delivered: list[bool] = []
    dispatcher = Dispatcher(
        stage.store, stage.ledger, stage.app, backlog=lambda: 100, finish=lambda *_: bool(delivered)
    )
    for _ in range(3):
        dispatcher.tick()
    # When a retry is requested before the delivery
    again = marker.model_copy(update={"generation": 2})
    stage.store.put(keys.waiting("bulk", "all", manifest.created, book.document, 2), again.to_bytes())
    for _ in range(3):
        dispatcher.tick()
    assert book.document not in dispatcher.active
    delivered.append(True)
    for _ in range(3):
        dispatcher.tick()
    # Then the retry starts after the delivery
    assert dispatcher.active[book.document].generation == 2
    assert list(stage.store.list(keys.WAITING)) == []


def test_a_foreign_object_among_waiting_markers_delays_no_document(stage: Stage) -> None:
    stage.store.put("waiting/bulk/all/0-what-is-this", b".")
    (status,) = stage.finish(stage.register("a", [1]), workers=1)
    assert status.status is DocumentStatus.COMPLETED
