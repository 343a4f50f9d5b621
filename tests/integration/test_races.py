"""Forced races: every order of events has the same outcome, and no result is overwritten."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import keys
from ocrfleet.broker.celery_app import publish_assembly, publish_pages
from ocrfleet.broker.ledger import Mark
from ocrfleet.errors import Reason, TransientError
from ocrfleet.records.documents import DocumentStatus, Manifest, Status
from ocrfleet.records.messages import PageJob
from ocrfleet.records.pages import PageResult, PageStatus
from ocrfleet.records.priority import Priority
from ocrfleet.storage import page_records as results
from ocrfleet.storage.page_records import record_pages
from producer.control.dispatcher import Dispatcher
from producer.control.sweep import Sweep
from producer.documents.service import DocumentService
from producer.intake.register import Registered
from tests.support.stage import Stage


def registry_of(stage: Stage) -> DocumentService:
    return DocumentService(stage.store, stage.ledger, stage.settings)


def job_of(book: Registered, first: int, last: int, *, generation: int = 1) -> PageJob:
    return PageJob(document=book.document, generation=generation, queue=Priority.BULK, first=first, last=last)


def result(page: int, text: str | None, *, stage: Stage) -> PageResult:
    failed = text is None
    return PageResult(
        page=page,
        status=PageStatus.FAILED if failed else PageStatus.DONE,
        text=text or "",
        profile=stage.profile.name,
        engine="e",
        model="m",
        revision="1",
        reason=Reason.ENGINE_FAILED if failed else None,
        detail="it said no" if failed else None,
    )


def idle(stage: Stage) -> bool:
    """The queue has no message, and there is no lease."""
    queue = keys.queue_pages("bulk", stage.profile.name)
    return not stage.valkey.client.llen(queue) and not stage.valkey.client.hlen(keys.UNACKED)


def test_a_job_that_two_workers_get_at_once_is_read_by_one(stage: Stage) -> None:
    # Given two workers, and pages that take a while
    stage.plan["seconds"] = 1.0
    book = stage.register("a", [1, 2])
    stage.keep_workers(2)
    stage.await_(lambda: len(stage.ledger.workers()) == 2)
    stage.dispatcher.tick()
    # When each job is delivered twice, while the first copy is in progress
    stage.await_(lambda: len(stage.recognised()) == 2)
    publish_pages(stage.app, stage.profile.name, [job_of(book, 1, 1), job_of(book, 2, 2)])
    (status,) = stage.finish(book)
    stage.await_(lambda: idle(stage))
    # Then each page is read once, and no copy is left
    assert status.status is DocumentStatus.COMPLETED
    assert sorted(stage.recognised()) == [1, 2]


def test_the_first_of_two_results_of_a_page_is_kept(stage: Stage) -> None:
    book = stage.register("a", [1, 2])
    stage.dispatcher.tick()
    manifest = Manifest.from_bytes(stage.store.get(keys.manifest(book.document)))
    for text in ("first", "second"):
        record_pages(stage.store, stage.ledger, job_of(book, 1, 1), manifest, result(1, text, stage=stage))
    assert stage.text(book, 1) == "first"
    (progress,) = stage.ledger.progress([(book.document, 1)])
    assert progress is not None
    assert (progress.terminal, progress.failed) == (1, 0)


def test_a_failure_that_comes_after_a_success_changes_nothing(stage: Stage) -> None:
    book = stage.register("a", [1, 2])
    stage.dispatcher.tick()
    manifest = Manifest.from_bytes(stage.store.get(keys.manifest(book.document)))
    # Given a done page, and a stale worker that reports it as failed
    for text in ("text", None):
        record_pages(stage.store, stage.ledger, job_of(book, 1, 1), manifest, result(1, text, stage=stage))
    # When the other page is read
    (status,) = stage.finish(book, workers=1)
    # Then the document is complete, with the text
    assert (status.status, status.done, status.failures) == (DocumentStatus.COMPLETED, 2, ())


def test_a_page_whose_worker_died_after_its_last_fault_fails_with_the_same_detail(stage: Stage) -> None:
    # Given two documents of the same kind, each with a page that the engine refuses
    stage.plan["fail"] = [1, 2]
    calm, struck = stage.register("calm", [1]), stage.register("struck", [2])
    stage.dispatcher.tick()
    # When for one of them a worker died between counting the last fault and storing the failure
    for _ in range(stage.settings.page_attempts):
        stage.ledger.fault(struck.document, 1, 1, Reason.ENGINE_FAILED, "it said no")
    first, second = stage.finish(calm, struck, workers=1)
    # Then both get the same result
    assert [failure.detail for failure in first.failures] == ["it said no"]
    assert first.failures == second.failures
    assert stage.recognised().count(2) == 0


def test_a_late_assembly_does_not_change_a_newer_generation(stage: Stage) -> None:
    stage.plan["fail"] = [2]
    book = stage.register("a", [1, 2])
    stage.finish(book, workers=1)
    first = stage.store.get(keys.status(book.document, 1))
    # Given a new generation that waits for a worker without failures
    stage.workers[0].kill()
    stage.workers[0].wait()
    stage.plan["fail"] = []
    registry = registry_of(stage)
    assert registry.retry(book.document).generation == 2
    stage.dispatcher.tick()
    # When the first generation is assembled again at the same time
    publish_assembly(stage.app, book.document, 1)
    (status,) = stage.finish(replace(book, generation=2), workers=1)
    stage.await_(lambda: not stage.valkey.client.llen(keys.QUEUE_ASSEMBLY))
    # Then each generation has its own status
    assert status.status is DocumentStatus.COMPLETED
    assert stage.store.get(keys.status(book.document, 1)) == first
    registry.close()


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_pages_in_flight_of_a_cancelled_document_store_nothing(stage: Stage, how: str) -> None:
    # Given a page in the engine, some being prepared, and others waiting
    until = stage.folder / "go"
    stage.plan |= {"wait": [1], "until": str(until)}
    book = stage.register("a", [1, 2, 3, 4, 5, 6, 7, 8])
    other = stage.register("b", [11])
    stage.start_worker()
    stage.await_(lambda: 1 in stage.recognised())
    # When the document is cancelled or deleted, and the page ends late
    registry = registry_of(stage)
    getattr(registry, how)(book.document)
    until.touch()
    (status,) = stage.finish(other)
    stage.await_(lambda: idle(stage))
    # Then only pages in flight of it are read, other documents are read, and no jobs or keys of it remain in Redis
    assert status.status is DocumentStatus.COMPLETED
    assert {1, 11} <= set(stage.recognised())
    assert len(set(stage.recognised()) - {1, 11}) <= 3
    stage.await_(lambda: not list(stage.store.list(keys.ACTIVE)))
    assert stage.valkey.client.keys(f"ocrfleet:ledger:{book.document}:*") == []
    if how == "cancel":
        ended = Status.from_bytes(stage.store.get(keys.status(book.document, 1)))
        assert ended.status is DocumentStatus.CANCELLED
    else:
        later = datetime.now(UTC) + timedelta(days=1)
        registry.remove_deleted(later)
        assert list(stage.store.list(keys.document(book.document))) == []
    registry.close()


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_document_that_is_given_up_while_its_ledger_is_rebuilt_stays_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    # Given a leader that finds the ledger unknown, and lists the store during a cancellation or deletion
    book = stage.register("a", [1, 2, 3])
    stage.dispatcher.tick()
    registry = registry_of(stage)
    stage.ledger.forget(book.document, 1)
    listing = results.stored_pages

    def meanwhile(*arguments: Any, **options: Any) -> results.StoredPages:
        found = listing(*arguments, **options)
        monkeypatch.setattr(results, "stored_pages", listing)
        getattr(registry, how)(book.document)
        return found

    monkeypatch.setattr(results, "stored_pages", meanwhile)
    # When it runs again, and a worker gets the queued jobs
    for _ in range(3):
        stage.dispatcher.tick()
    stage.start_worker()
    stage.await_(lambda: idle(stage))
    # Then no page of it is read, and it is not active any more
    assert stage.recognised() == []
    assert stage.dispatcher.active == {}
    assert list(stage.store.list(keys.ACTIVE)) == []
    registry.close()


def test_a_worker_skips_pages_of_a_document_whose_objects_are_gone(stage: Stage) -> None:
    # Given a worker with a cached document, which is deleted with all its objects
    until = stage.folder / "go"
    stage.plan |= {"wait": [1], "until": str(until)}
    book = stage.register("a", [1, 2, 3, 4, 5, 6, 7, 8, 9])
    stage.start_worker()
    stage.await_(lambda: 1 in stage.recognised())
    registry = registry_of(stage)
    registry.delete(book.document)
    registry.remove_deleted()
    # When it continues
    until.touch()
    stage.await_(lambda: idle(stage))
    # Then only pages in flight are read, and Redis has no keys of the document
    assert len(set(stage.recognised())) <= 4
    stage.await_(lambda: stage.valkey.client.keys(f"ocrfleet:ledger:{book.document}:*") == [])
    registry.close()


def test_a_document_activated_by_a_former_leader_is_found_by_the_next(stage: Stage) -> None:
    # Given a new leader, and an old one that dispatches a document at the same time
    finished: list[str] = []
    after = Dispatcher(
        stage.store,
        stage.ledger,
        stage.app,
        backlog=lambda: 100,
        finish=lambda document, _: finished.append(document) or True,  # type: ignore[func-returns-value]
    )
    after.adopt()
    book = stage.register("a", [1, 2])
    stage.dispatcher.tick()
    stage.start_worker()
    # When it lists active documents, as before each sweep
    after.adopt()
    stage.await_(lambda: after.tick() is not None and finished == [book.document])
    # Then the document ends, and its marker is removed
    assert list(stage.store.list(keys.ACTIVE)) == []


def test_a_leader_that_was_late_leaves_the_marker_of_a_newer_generation(stage: Stage) -> None:
    # Given a document that has ended, and is active again in its next generation
    stage.plan["fail"] = [2]
    book = stage.register("a", [1, 2])
    late = stage.new_dispatcher()
    stage.dispatcher.tick()
    late.adopt()
    stage.start_worker()
    stage.await_(lambda: stage.store.exists(keys.status(book.document, 1)))
    stage.await_(lambda: not list(stage.store.list(keys.ACTIVE)))
    stage.register("a", [], retry_failed=True)
    stage.dispatcher.tick()
    assert list(stage.store.list(keys.ACTIVE)) == [keys.active(book.document)]
    # When a suspended leader finds the end of the first generation
    late.tick()
    # Then the marker of the second one stays
    assert list(stage.store.list(keys.ACTIVE)) == [keys.active(book.document)]


def test_a_record_that_can_not_be_read_costs_its_document_no_more_than_a_look_now_and_then(stage: Stage) -> None:
    # Given a page record of a newer version
    stage.plan["seconds"] = 0.5
    book = stage.register("a", [1, 2])
    stage.dispatcher.tick()
    stage.store.create(keys.page_done(book.document, 1), b'{"schema_version":9}')
    other = stage.register("b", [3])
    # When an assembly job of the document is processed
    stage.start_worker()
    stage.finish(other)
    stage.await_(lambda: "job.record_damaged" in stage.logs())
    # Then its message is not requeued repeatedly, and the record is kept
    assert "job.given_back" not in stage.logs()
    assert stage.store.get(keys.page_done(book.document, 1)) == b'{"schema_version":9}'
    assert not stage.store.exists(keys.status(book.document, 1))


def test_the_sweep_does_not_repeat_jobs_that_are_being_published(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a sweep that runs twice between the publishing of messages and its record in the ledger, and twice after it
    book = stage.register("a", [1, 2, 3])
    sweeps: list[int] = []

    def looks() -> None:
        sweeps.extend(stage.sweep.run() for _ in range(2))

    published = stage.ledger.published

    def slowly(document: str, generation: int, page: int) -> None:
        looks()
        published(document, generation, page)
        looks()

    monkeypatch.setattr(stage.ledger, "published", slowly)
    stage.dispatcher.tick()
    # Then it publishes no job again
    assert sweeps == [0] * 4
    assert stage.valkey.client.llen(keys.queue_pages("bulk", stage.profile.name)) == 3
    stage.finish(book, workers=1)
    assert sorted(stage.recognised()) == [1, 2, 3]


def test_a_publish_that_was_cut_short_is_done_again_and_read_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a dispatcher that loses Redis between the publishing of messages and its record in the ledger
    book = stage.register("a", [1, 2, 3])
    with monkeypatch.context() as patch:

        def away(*_: object) -> None:
            raise TransientError("Redis is away")

        patch.setattr(stage.ledger, "published", away)
        with pytest.raises(TransientError):
            stage.dispatcher.tick()
    # When it continues, each job is on the queue twice
    stage.dispatcher.tick()
    assert stage.valkey.client.llen(keys.queue_pages("bulk", stage.profile.name)) == 6
    # Then two workers read each page once
    (status,) = stage.finish(book, workers=2)
    assert status.status is DocumentStatus.COMPLETED
    assert sorted(stage.recognised()) == [1, 2, 3]


def test_several_sweeps_publish_lost_jobs_once(stage: Stage) -> None:
    # Given pages with lost messages, and two sweeps that have both missed them once
    stage.register("a", [1, 2, 3])
    stage.dispatcher.tick()
    stage.valkey.client.delete(keys.queue_pages("bulk", stage.profile.name))
    sweeps = [Sweep(stage.dispatcher, stage.store, stage.ledger, stage.app) for _ in range(2)]
    for sweep in sweeps:
        sweep.run()
    for sweep in sweeps:
        sweep.run()
    assert stage.valkey.client.llen(keys.queue_pages("bulk", stage.profile.name)) == 3


def test_no_page_is_read_twice_after_redis_lost_its_last_second(stage: Stage) -> None:
    # Given a document with two of three pages done, and a Redis as it was before them, its messages lost
    book = stage.register("a", [1, 2, 3])
    stage.dispatcher.tick()
    before = {name: stage.valkey.client.dump(name) for name in stage.valkey.client.keys("ocrfleet:*")}
    manifest = Manifest.from_bytes(stage.store.get(keys.manifest(book.document)))
    for page in (1, 2):
        record_pages(stage.store, stage.ledger, job_of(book, page, page), manifest, result(page, "t", stage=stage))
    stage.valkey.client.flushall()
    for name, value in before.items():
        stage.valkey.client.restore(name, 0, value)  # type: ignore[arg-type]
    # When the sweep and a worker continue
    (status,) = stage.finish(book, workers=1)
    # Then only the page without a record is read
    assert status.status is DocumentStatus.COMPLETED
    assert stage.recognised() == [3]


def test_bits_of_an_older_generation_do_not_touch_a_newer_one(stage: Stage) -> None:
    # Given a document with a failed second page, and the data of Redis at that time
    stage.plan["fail"] = [2]
    book = stage.register("a", [1, 2])
    stage.dispatcher.tick()
    manifest = Manifest.from_bytes(stage.store.get(keys.manifest(book.document)))
    record_pages(stage.store, stage.ledger, job_of(book, 1, 1), manifest, result(1, "t", stage=stage))
    record_pages(stage.store, stage.ledger, job_of(book, 2, 2), manifest, result(2, None, stage=stage))
    before = {name: stage.valkey.client.dump(name) for name in stage.valkey.client.keys("ocrfleet:*")}
    publish_assembly(stage.app, book.document, 1)
    stage.plan["fail"] = []
    stage.start_worker()
    stage.await_(lambda: stage.store.exists(keys.status(book.document, 1)))
    stage.await_(lambda: stage.valkey.client.keys(f"ocrfleet:ledger:{book.document}:*") == [])
    # When it is retried, and Redis restarts with an old file
    again = stage.register("a", [], retry_failed=True)
    stage.dispatcher.tick()
    for name, value in before.items():
        stage.valkey.client.restore(name, 0, value, replace=True)  # type: ignore[arg-type]
    assert stage.ledger.mark(book.document, 1, ()) is Mark.LAST
    # Then the page is still read
    (status,) = stage.finish(again)
    assert (status.generation, status.status) == (2, DocumentStatus.COMPLETED)
    assert stage.recognised() == [2]


def test_a_reader_has_one_generation_while_the_next_one_is_written(stage: Stage, tmp_path: Path) -> None:
    # Given a client that reads an output
    stage.plan["fail"] = [2]
    book = stage.register("a", [1, 2])
    (status,) = stage.finish(book, workers=1)
    output = status.outputs["md"]
    with stage.store.open(output.key) as stream:
        begun = stream.read(10)
        # When a new generation is read, assembled and stored
        stage.workers[0].kill()
        stage.workers[0].wait()
        stage.plan["fail"] = []
        again = stage.register("a", [], retry_failed=True)
        (later,) = stage.finish(again, workers=1)
        # Then the client reads the old output to its end, and the old output is kept
        whole = begun + stream.read()
    assert hashlib.sha256(whole).hexdigest() == output.sha256
    assert stage.store.get(output.key) == whole
    assert later.outputs["md"].sha256 != output.sha256
