from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocrfleet import keys
from ocrfleet.errors import NotFoundError, Reason
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.documents import DocumentStatus, Manifest, Marker, Problem, Status
from ocrfleet.records.priority import Priority
from ocrfleet.records.workers import WorkerState
from ocrfleet.storage.store import FolderStore
from producer.cli.render.documents import show_collection
from producer.delivery.finisher import Undelivered
from producer.documents import collections as collection_module
from producer.documents import listing as query_module
from producer.documents import wait as waiting
from producer.documents.retention import PurgeKind
from producer.documents.service import DocumentService
from producer.documents.views import PageState, State
from producer.errors import ConflictError, UnanswerableError
from producer.state.profiles import save_profile
from tests.support.servers import Valkey
from tests.support.shelf import Shelf, marker, page_result

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.registry.close()


@pytest.fixture
def served(tmp_path: Path, valkey: Valkey) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path, valkey.url)
    valkey.client.set(keys.REDIS_DISPATCHER, "somebody")
    yield shelf
    shelf.registry.close()


# ---- one document


def test_a_document_that_ended_is_shown_with_its_pages_reasons_and_outputs(shelf: Shelf) -> None:
    document = shelf.ended("box/letter.pdf", failed={2: Reason.TRUNCATED})

    view = shelf.registry.view(document)

    assert (view.state, view.generation, view.total, view.done, view.failed, view.blank) == (
        State.PARTIAL,
        1,
        3,
        2,
        1,
        1,
    )
    assert view.reasons == {Reason.TRUNCATED: 1}
    assert [(failure.page, failure.reason) for failure in view.failures] == [(2, Reason.TRUNCATED)]
    assert view.outputs["md"].size == 4
    assert [(name.name, name.collection) for name in view.names] == [("box/letter.pdf", "c")]
    assert (view.queue, view.profile, view.created[:8], view.left) == (Priority.BULK, "rapidocr", "20261122", 0)


@pytest.mark.parametrize("document", ["f" * 32, "f" * 8, "../../etc/passwd", "", "F" * 32])
def test_an_unknown_document_is_not_found_with_a_reason(shelf: Shelf, document: str) -> None:
    with pytest.raises(NotFoundError, match="no document"):
        shelf.registry.view(document)


def test_without_redis_progress_is_counted_in_the_store(shelf: Shelf) -> None:
    # Given an active document with a done and a failed page, and an unreachable Redis
    document = shelf.active()
    shelf.store.put(keys.page_done(document, 1), page_result(1).to_bytes())
    shelf.store.put(keys.page_failed(document, 2, 1), page_result(2, Reason.EMPTY).to_bytes())

    view = shelf.registry.view(document)

    assert (view.state, view.done, view.failed, view.left) == (State.ACTIVE, 1, 1, 1)
    assert view.outputs == {}


def test_progress_is_read_from_the_ledger(served: Shelf) -> None:
    document = served.active()
    served.ledger.seed(document, 1, total=3, done=[1, 2], failed=[3])

    view = served.registry.view(document)

    assert (view.done, view.failed) == (2, 1)


def test_a_leftover_marker_does_not_reopen_a_document(shelf: Shelf) -> None:
    document = shelf.ended()
    shelf.store.put(keys.active(document), marker(1).to_bytes())

    assert shelf.registry.view(document).state is State.COMPLETED


def test_pages_are_listed_with_reasons_and_cursors(shelf: Shelf) -> None:
    document = shelf.active(pages=5)
    shelf.store.put(keys.page_done(document, 1), page_result(1).to_bytes())
    shelf.store.put(keys.page_failed(document, 2, 1), page_result(2, Reason.EMPTY).to_bytes())

    first = shelf.registry.pages(document, limit=2)
    rest = shelf.registry.pages(document, after=first.next or 0, limit=3)

    assert [(page.page, page.state, page.reason) for page in first.items] == [
        (1, PageState.DONE, None),
        (2, PageState.FAILED, Reason.EMPTY),
    ]
    assert [page.state for page in rest.items] == [PageState.OPEN] * 3
    assert (first.next, rest.next) == (2, None)


def test_a_page_is_its_success_else_its_latest_failure(shelf: Shelf) -> None:
    document = shelf.active()
    for generation, reason in ((1, Reason.EMPTY), (2, Reason.REPETITION)):
        shelf.store.put(keys.page_failed(document, 2, generation), page_result(2, reason).to_bytes())
    assert shelf.registry.page(document, 2).reason is Reason.REPETITION

    shelf.store.put(keys.page_done(document, 2), page_result(2).to_bytes())
    assert shelf.registry.page(document, 2).text == "text of 2"

    for page in (1, 3, 0, 10**7):
        with pytest.raises(NotFoundError, match=f"no result of page {page}"):
            shelf.registry.page(document, page)


# ---- lists


def test_a_collection_is_listed_by_portions_each_document_once(shelf: Shelf) -> None:
    # Given a collection with one document under two names
    documents = [shelf.ended(), shelf.waiting("b.pdf"), shelf.active("c.pdf")]
    twice = Manifest.from_bytes(shelf.store.get(keys.manifest(documents[1])))
    shelf.want(twice, "again.pdf")
    shelf.ended(collection="other")

    found = []
    after = None
    while True:
        portion = shelf.registry.documents(collection="c", after=after, limit=1)
        found += [(item.id, item.state) for item in portion.items]
        after = portion.next
        if after is None:
            break

    assert found == list(zip(documents, [State.COMPLETED, State.WAITING, State.ACTIVE], strict=True))


def test_documents_are_listed_by_state_and_by_day(shelf: Shelf) -> None:
    early = shelf.ended(day="20261121")
    late = shelf.ended(day="20261122")
    partial = shelf.ended(failed={1: Reason.EMPTY})
    waiting, active = shelf.waiting(), shelf.active()
    elsewhere = shelf.waiting(collection="other")

    def ids(**asked: object) -> list[str]:
        return [item.id for item in shelf.registry.documents(**asked).items]  # type: ignore[arg-type]

    assert ids(state=State.COMPLETED) == [early, late]
    assert ids(state=State.COMPLETED, day="20261121") == [early]
    assert ids(day="20261122") == [late, partial]
    assert ids(state=State.PARTIAL, collection="c") == [partial]
    assert ids(state=State.WAITING) == [waiting, elsewhere]
    assert ids(state=State.WAITING, collection="other") == [elsewhere]
    assert ids(state=State.ACTIVE, collection="c") == [active]
    assert ids(state=State.ACTIVE, collection="other") == []
    assert ids(collection="c", day="20261121") == [early]
    assert ids(collection="c", day="20261121", state=State.PARTIAL) == []


def test_outdated_index_entries_are_ignored(shelf: Shelf) -> None:
    document = shelf.ended()
    shelf.store.put(keys.ended(DocumentStatus.PARTIAL, "20261122", document), b".")

    assert shelf.registry.documents(state=State.PARTIAL).items == ()
    assert [item.id for item in shelf.registry.documents(day="20261122").items] == [document]


def test_a_search_that_finds_little_ends_with_a_place_to_go_on_from(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given one failed document behind six others, and calls that look at four entries
    monkeypatch.setattr(query_module, "_LOOKED_AT", 4)
    monkeypatch.setattr(query_module, "_AT_ONCE", 2)
    for _ in range(6):
        shelf.ended()
    failed = shelf.ended(failed=dict.fromkeys((1, 2, 3), Reason.EMPTY))

    first = shelf.registry.documents(collection="c", state=State.FAILED)
    second = shelf.registry.documents(collection="c", state=State.FAILED, after=first.next)

    assert first.items == ()
    assert [item.id for item in second.items] == [failed]
    assert second.next is None


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"collection": "../x"},
        {"day": "yesterday"},
        {"state": State.ACTIVE, "day": "20261122"},
        {"state": State.ARRIVING},
        {"collection": "c", "after": "collections/other/x"},
        {"collection": "c", "after": "documents/"},
    ],
)
def test_a_query_without_an_index_is_refused(shelf: Shelf, asked: dict[str, object]) -> None:
    with pytest.raises(UnanswerableError):
        shelf.registry.documents(**asked)  # type: ignore[arg-type]


# ---- retry, cancel, pause


def test_retry_makes_a_document_wait_in_its_next_generation(shelf: Shelf) -> None:
    document = shelf.ended(failed={2: Reason.TRUNCATED})
    save_profile(shelf.store, RAPIDOCR.model_copy(update={"pages_per_job": 5}))

    retried = shelf.registry.retry(document)

    assert (retried.opened, retried.generation) == (True, 2)
    (key,) = shelf.store.list(keys.waiting_in(Priority.BULK, "c"))
    written = Marker.from_bytes(shelf.store.get(key))
    assert (written.generation, written.pages_per_job, written.profile_digest) == (2, 5, RAPIDOCR.digest)
    view = shelf.registry.view(document)
    assert (view.state, view.generation, view.done, view.failed) == (State.WAITING, 2, 2, 0)
    assert shelf.registry.documents(state=State.PARTIAL).items == ()


def test_retry_of_a_completed_document_does_nothing(shelf: Shelf) -> None:
    document = shelf.ended()

    assert shelf.registry.retry(document).opened is False
    assert list(shelf.store.list(keys.WAITING)) == []


def test_retry_refuses_open_documents_and_failed_intake(shelf: Shelf) -> None:
    problem = Problem(reason=Reason.EMPTY_FILE, detail="0 bytes")
    broken = shelf.manifest().model_copy(update={"sources": (), "selection": (), "problem": problem})
    shelf.store.put(keys.manifest(broken.document), broken.to_bytes())
    shelf.want(broken)
    status = Status(
        document=broken.document,
        generation=1,
        status=DocumentStatus.FAILED,
        total=0,
        done=0,
        problem=problem,
        outputs={},
    )
    shelf.store.put(keys.status(broken.document, 1), status.to_bytes())

    with pytest.raises(ConflictError, match="still waiting"):
        shelf.registry.retry(shelf.waiting())
    with pytest.raises(ConflictError, match="empty_file"):
        shelf.registry.retry(broken.document)
    assert shelf.registry.view(broken.document).problem == problem


def test_cancel_ends_a_document_with_its_done_pages(served: Shelf) -> None:
    # Given an active document with one page that is done
    document = served.active()
    served.store.put(keys.page_done(document, 3), page_result(3).to_bytes())
    served.ledger.seed(document, 1, total=3, done=[3], failed=[])

    served.registry.cancel(document)

    # Then it has ended, its page counts, its ledger is removed, and the dispatcher removes its marker
    status = Status.from_bytes(served.store.get(keys.status(document, 1)))
    assert (status.status, status.done, status.total, status.outputs) == (DocumentStatus.CANCELLED, 1, 3, {})
    assert served.ledger.progress([(document, 1)]) == [None]
    assert served.store.exists(keys.active(document))
    assert served.registry.view(document).state is State.CANCELLED
    assert [item.id for item in served.registry.documents(state=State.CANCELLED).items] == [document]
    with pytest.raises(ConflictError, match="ended already"):
        served.registry.cancel(document)

    # And it can be gone on with
    assert served.registry.retry(document).generation == 2


def test_a_document_that_ended_during_its_cancellation_keeps_its_status(served: Shelf) -> None:
    document = served.active()

    class Late(FolderStore):
        def create(self, key: str, data: bytes) -> bool:
            ended = Status(
                document=document, generation=1, status=DocumentStatus.COMPLETED, total=3, done=3, outputs={}
            )
            self.put(key, ended.to_bytes())
            return super().create(key, data)

    late = DocumentService(Late(Path(served.settings.store)), served.ledger, served.settings)
    with pytest.raises(ConflictError, match="just now"):
        late.cancel(document)
    late.close()
    assert served.registry.view(document).state is State.COMPLETED


def test_a_collection_is_paused_until_it_is_resumed(shelf: Shelf) -> None:
    shelf.registry.pause("c")
    assert shelf.registry.paused() == ["c"]
    shelf.registry.resume("c")
    assert shelf.registry.paused() == []
    with pytest.raises(UnanswerableError):
        shelf.registry.pause("../../active")


# ---- delete and purge


def test_a_deleted_document_is_gone_at_once_and_its_objects_soon(served: Shelf) -> None:
    document, other = served.waiting(), served.ended()
    served.store.put(keys.page_done(document, 1), page_result(1).to_bytes())

    served.registry.delete(document)

    with pytest.raises(NotFoundError):
        served.registry.view(document)
    assert [item.id for item in served.registry.documents(collection="c").items] == [other]
    assert list(served.store.list(keys.WAITING)) == []
    assert list(served.store.list(keys.ended_on("cancelled"))) == []
    assert served.registry.remove_deleted() == 2  # its page, and the status that cancelled it
    assert served.kept(document) == []
    assert len(served.kept(other)) > 0


def test_late_writes_into_a_deleted_document_are_removed(served: Shelf) -> None:
    document = served.ended()
    served.registry.delete(document)
    served.registry.remove_deleted()
    served.store.put(keys.page_done(document, 1), page_result(1).to_bytes())
    served.store.put(keys.ended(DocumentStatus.COMPLETED, "20261122", document), b".")
    now = datetime.now(UTC)

    # As long as workers may be late the tombstone stays, then it goes with all that came meanwhile
    assert served.registry.remove_deleted(now + timedelta(minutes=90)) == 0
    assert served.store.exists(keys.deleted(document))
    assert served.registry.remove_deleted(now + timedelta(hours=3)) == 1
    assert not served.store.exists(keys.deleted(document))
    assert served.kept(document) == []
    assert list(served.store.list(keys.ended_on("completed"))) == []


def test_a_document_registered_again_loses_nothing_to_its_tombstone(served: Shelf) -> None:
    document = served.ended()
    manifest = served.store.get(keys.manifest(document))
    served.registry.delete(document)
    served.store.put(keys.manifest(document), manifest)
    served.store.put(keys.page_done(document, 1), page_result(1).to_bytes())

    assert served.registry.remove_deleted() == 0
    assert served.registry.remove_deleted(datetime.now(UTC) + timedelta(hours=3)) == 0
    assert not served.store.exists(keys.deleted(document))
    assert served.registry.page(document, 1).text == "text of 1"


def test_removal_stops_at_its_time_limit_and_continues_later(served: Shelf) -> None:
    document = served.ended()
    served.registry.delete(document)

    assert served.registry.remove_deleted(seconds=-1) == 0
    assert served.registry.remove_deleted() > 0
    assert served.kept(document) == []


def test_purging_pages_keeps_outputs_and_incomplete_documents(shelf: Shelf) -> None:
    old, young = shelf.ended(day="20261001"), shelf.ended(day="20261124")
    partial = shelf.ended(day="20261001", failed={1: Reason.EMPTY})
    before = shelf.kept(old)
    month = timedelta(days=30)

    would = shelf.registry.purge(older_than=month, what=PurgeKind.PAGES, dry_run=True, now=NOW)
    assert shelf.kept(old) == before
    removed = shelf.registry.purge(older_than=month, what=PurgeKind.PAGES, now=NOW)

    assert (would, removed.documents, removed.objects) == (removed, 1, 3)
    assert [key.split("/")[2] for key in shelf.kept(old)] == ["manifest.json", "out", "status", "wanted"]
    assert len(list(shelf.store.list(keys.pages(young)))) == 3
    assert len(list(shelf.store.list(keys.pages(partial)))) == 3
    assert [page.state for page in shelf.registry.pages(old).items] == [PageState.DONE] * 3


def test_purged_documents_are_deleted(shelf: Shelf) -> None:
    old, young = shelf.ended(day="20261001"), shelf.ended(day="20261124")

    assert shelf.registry.purge(older_than=timedelta(days=30), what=PurgeKind.DOCUMENTS, now=NOW).documents == 1

    with pytest.raises(NotFoundError):
        shelf.registry.view(old)
    assert shelf.registry.view(young).state is State.COMPLETED


def test_an_upload_is_purged_after_all_its_documents_ended(shelf: Shelf) -> None:
    # Given uploads: of an old document, one shared with an open document, one that nothing refers to yet
    old, shared, fresh = ("1" * 64, "2" * 64, "3" * 64)
    ended = shelf.ended(day="20261001")
    waiting = shelf.waiting(day="20261001")
    for upload in (old, shared, fresh):
        shelf.store.put(keys.upload(upload), b"bytes")
    for upload, document in ((old, ended), (shared, ended), (shared, waiting)):
        shelf.store.put(f"{keys.upload(upload)}.refs/{document}", b".")

    shelf.registry.purge(older_than=timedelta(days=30), what=PurgeKind.UPLOADS, now=NOW)

    uploads = [key for key in shelf.store.list(keys.UPLOADS) if ".refs" not in key]
    assert uploads == [keys.upload(shared), keys.upload(fresh)]


# ---- collections


def test_a_report_has_every_source_of_a_collection(shelf: Shelf) -> None:
    shelf.ended("done.pdf")
    shelf.ended("torn.pdf", failed={1: Reason.EMPTY, 2: Reason.EMPTY})
    shelf.waiting("waits.pdf")
    gone = shelf.ended("gone.pdf", failed={1: Reason.EMPTY})
    shelf.store.delete(keys.manifest(gone))
    shelf.arrive("new.pdf", "newer.pdf")
    shelf.store.put(keys.refused(keys.arrival(Priority.BULK, "c", "20261123T000000.000000Z", "e" * 64)), b"?")
    shelf.ended(collection="other")

    rows = list(shelf.registry.collection_report("c"))

    assert [(row.name, row.state, row.done, row.total, row.reasons) for row in rows if "refused/" not in row.name] == [
        ("new.pdf", State.ARRIVING, 0, 0, ""),
        ("newer.pdf", State.ARRIVING, 0, 0, ""),
        ("done.pdf", State.COMPLETED, 3, 3, ""),
        ("torn.pdf", State.PARTIAL, 1, 3, "empty 2"),
        ("waits.pdf", State.WAITING, 0, 3, ""),
        ("gone.pdf", State.DELETED, 0, 0, ""),
    ]
    assert [row.state for row in rows if "refused/" in row.name] == [State.DAMAGED]


def test_a_damaged_record_costs_its_row_only(shelf: Shelf) -> None:
    document = shelf.ended("torn.pdf")
    shelf.store.put(keys.status(document, 1), b"{")
    shelf.ended("whole.pdf")

    rows = {row.name: row for row in shelf.registry.collection_report("c")}

    assert rows["torn.pdf"].state is State.DAMAGED
    assert rows["whole.pdf"].state is State.COMPLETED


def test_a_report_holds_few_of_its_rows(shelf: Shelf) -> None:
    # Given a collection many times as long as one batch
    manifest = shelf.manifest()
    for number in range(1500):
        shelf.want(manifest, f"{number}.pdf")
    shelf.store.put(keys.active(manifest.document), marker(1).to_bytes())
    registry = DocumentService(shelf.store, None, shelf.settings)

    report = registry.collection_report("c")
    tracemalloc.start()
    count = sum(1 for _ in itertools.islice(report, 600))
    early = tracemalloc.get_traced_memory()[0]
    count += sum(1 for _ in report)
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    registry.close()

    assert count == 1500
    assert late < early + 1_000_000


def test_the_time_left_follows_from_pages_and_speed(served: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given 10 pages that wait, 8 of an active document, and two workers that read a page in two seconds each
    monkeypatch.setattr(collection_module, "_COUNTED", 1)
    served.waiting(pages=5)
    served.waiting(pages=5)
    active = served.active(pages=10)
    served.ledger.seed(active, 1, total=10, done=[1], failed=[2])
    served.ended()
    served.waiting(collection="other", pages=1000)
    for name in ("a", "b"):
        worker = WorkerState(
            worker=name, profile="rapidocr", profile_digest=RAPIDOCR.digest, busy_seconds=100, pages=50
        )
        served.ledger.heartbeat(worker, 30)

    forecast = served.registry.when_done("c")

    assert (forecast.documents, forecast.pages, forecast.seconds) == (3, 18, 18.0)
    assert forecast.exact is False  # one of the two that wait was counted


def test_the_time_left_is_unknown_without_workers(served: Shelf) -> None:
    assert served.registry.when_done("c").seconds == 0

    served.arrive("new.pdf", "newer.pdf")
    forecast = served.registry.when_done("c")
    assert (forecast.seconds, forecast.arriving) == (None, 2)

    served.waiting()
    assert "no worker serves rapidocr" in (served.registry.when_done("c").reason or "")

    state = WorkerState(worker="a", profile="rapidocr", profile_digest=RAPIDOCR.digest, seconds=1, pages=0)
    served.ledger.heartbeat(state, 30)
    forecast = served.registry.when_done("c")
    assert (forecast.seconds, forecast.assumed) == (3 / served.settings.pages_per_second, True)

    served.registry.pause("c")
    assert "paused" in (served.registry.when_done("c").reason or "")


def test_the_time_left_is_unknown_without_a_leader(
    served: Shelf, valkey: Valkey, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey.client.delete(keys.REDIS_DISPATCHER)
    # A collection without open documents needs no leader
    ended = served.ended()
    assert served.registry.when_done("c").seconds == 0
    # Documents that wait for delivery, and batches that wait for intake, need one
    served.store.put(keys.active(ended), marker(1).to_bytes())
    show_collection("c", served.registry.collection_report("c"), served.registry.when_done("c"), paused=False)
    assert (
        "Not delivered yet: 1 documents; no process leads: start ocrfleet serve or dispatch" in capsys.readouterr().out
    )
    served.arrive("new.pdf")
    show_collection("c", served.registry.collection_report("c"), served.registry.when_done("c"), paused=False)
    assert "unknown: no process leads: start ocrfleet serve or dispatch" in capsys.readouterr().out
    # And a waiting command shows that there is no leader, until there is one
    told: list[str] = []

    def show(text: str, _ended: int, _total: int | None) -> None:
        told.append(text)
        if len(told) == 1:
            valkey.client.set(keys.REDIS_DISPATCHER, "somebody")
        else:
            for key in [*served.store.list(keys.arrivals(Priority.BULK, "c")), *served.store.list(keys.ACTIVE)]:
                served.store.delete(key)

    monkeypatch.setattr(waiting, "_PAUSE", 0.01)
    waiting.wait_for(served.registry, "c", show)
    assert ["no process leads: start ocrfleet serve or dispatch" in text for text in told] == [True, False]


def test_an_ended_document_counts_as_left_until_its_delivery(served: Shelf) -> None:
    # Given an ended document that still has its marker, and one that is submitted again
    document, other = served.ended("a.pdf"), served.ended("b.pdf")
    served.store.put(keys.active(document), marker(1).to_bytes())
    served.store.put(keys.waiting(Priority.BULK, "c", "20261122T000002.000000Z", other, 1), marker(1).to_bytes())
    assert served.registry.when_done("c").finishing == 2
    assert served.registry.when_done("other").finishing == 0
    # When its marker goes, as its results can't be delivered, that is known
    served.store.delete(keys.active(document))
    left = Undelivered(document=document, generation=1, detail="no such bucket")
    served.store.put(keys.undelivered(document), left.to_bytes())
    assert list(served.registry.undelivered("c")) == [left]
    assert list(served.registry.undelivered("other")) == []
    assert served.registry.sources("c") == 2
