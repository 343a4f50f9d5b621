"""The count of waiting pages follows the store, also after Redis was wiped."""

from __future__ import annotations

from pathlib import Path

from ocrfleet import keys
from producer.documents.service import DocumentService
from producer.state.backlog import Recount, count
from tests.support.servers import Valkey
from tests.support.stage import Stage


def test_the_backlog_count_follows_added_and_removed_documents(tmp_path: Path, valkey: Valkey) -> None:
    stage = Stage(tmp_path, valkey, backlog_pages=4)
    try:
        # Given a fleet without a full count yet: a partial count is not used
        stage.register("before", [1, 2])
        assert stage.ledger.waiting() is None
        # When it is counted, and more comes
        stage.ledger.counted(count(stage.store))
        stage.register("a", [3, 4, 5], collection="letters")
        stage.register("a", [3, 4, 5], collection="letters")  # once more: it waits already
        assert stage.ledger.waiting() == {("bulk", "all"): 2, ("bulk", "letters"): 3}
        # Then published pages do not count as waiting
        stage.dispatcher.tick()
        waiting = stage.ledger.waiting()
        assert waiting is not None
        assert waiting == count(stage.store)
        assert sum(waiting.values()) < 5
    finally:
        stage.close()


def test_a_retry_waits_with_the_pages_that_are_left(stage: Stage) -> None:
    stage.ledger.counted({})
    stage.plan["fail"] = [2]
    book = stage.register("a", [1, 2, 3])
    stage.finish(book, workers=1)
    assert stage.ledger.waiting() == {}
    stage.register("a", [], retry_failed=True)
    assert stage.ledger.waiting() == {("bulk", "all"): 1}


def test_the_backlog_is_counted_again_after_redis_was_wiped(stage: Stage) -> None:
    stage.register("a", [1, 2, 3])
    recount = Recount(stage.store, stage.ledger)
    recount.begin_if_due()
    stage.await_(lambda: stage.ledger.waiting() is not None)
    stage.valkey.client.flushall()
    assert stage.ledger.waiting() is None
    recount.begin_if_due()
    stage.await_(lambda: stage.ledger.waiting() == count(stage.store))


def test_cancelled_deleted_and_repeated_documents_leave_the_backlog(tmp_path: Path, valkey: Valkey) -> None:
    stage = Stage(tmp_path, valkey, backlog_pages=4)
    registry = DocumentService(stage.store, stage.ledger, stage.settings)
    try:
        stage.ledger.counted({})
        begun = stage.register("a", list(range(10)))
        cancelled, deleted = stage.register("b", [20, 21, 22]), stage.register("c", [30, 31])
        stage.dispatcher.tick()
        # When one is cancelled, one deleted, and the active one is submitted to another collection too
        registry.cancel(cancelled.document)
        registry.delete(deleted.document)
        stage.register("a", [], collection="two")
        registry.cancel(begun.document)
        for _ in range(6):
            stage.dispatcher.tick()
        # Then only waiting pages are counted
        assert not list(stage.store.list(keys.WAITING))
        assert stage.ledger.waiting() == {}
    finally:
        registry.close()
        stage.close()
