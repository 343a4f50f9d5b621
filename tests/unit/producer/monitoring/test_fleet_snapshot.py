"""Fleet snapshot: backlog, queue, workers, time left."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocrfleet import keys
from ocrfleet.errors import TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.base import registered_at
from ocrfleet.records.documents import Manifest, Marker
from ocrfleet.records.priority import Priority
from ocrfleet.records.workers import WorkerState
from producer.monitoring import inventory as inventory_module
from producer.monitoring.fleet_snapshot import FleetMonitor, gauges_of
from producer.monitoring.inventory import WaitingDocuments, take_inventory, waiting
from producer.monitoring.top import Top
from producer.state.active import ActiveDocument
from producer.state.backlog import Backlog
from tests.support.servers import Valkey
from tests.support.shelf import Shelf, marker


@pytest.fixture
def shelf(tmp_path: Path, valkey: Valkey) -> Shelf:
    return Shelf(tmp_path, valkey.url)


def begun(shelf: Shelf, *, pages: int, published: int, done: int = 0, collection: str = "c") -> ActiveDocument:
    """A document that is being read: some pages on the queue, some read."""
    document = shelf.active(collection=collection, pages=pages)
    active = ActiveDocument(Manifest.from_bytes(shelf.store.get(keys.manifest(document))), marker(1, collection))
    shelf.ledger.seed(document, 1, total=pages, done=range(1, done + 1), failed=[])
    shelf.ledger.published(document, 1, published)
    (active.progress,) = shelf.ledger.progress([(document, 1)])
    return active


def hold(shelf: Shelf, active: ActiveDocument, *pages: int, worker: str = "w") -> None:
    for page in pages:
        shelf.ledger.hold(active.document, 1, page, worker=worker, alone=False)


def state(**told: object) -> WorkerState:
    known = {"worker": "w", "profile": RAPIDOCR.name, "profile_digest": RAPIDOCR.digest}
    return WorkerState.model_validate(known | told)


class TestInventory:
    def test_documents_wait_by_class_and_paused_ones_apart(self, shelf: Shelf) -> None:
        now = datetime.now(UTC)
        days = [(now - timedelta(days=back)).strftime("%Y%m%d") for back in (3, 1)]
        for day in days:
            shelf.waiting(day=day)
        shelf.waiting(collection="drafts", day="20200101")
        shelf.registry.pause("drafts")

        found = take_inventory(shelf.store)

        assert found.waiting[Priority.INTERACTIVE] == WaitingDocuments()
        bulk = found.waiting[Priority.BULK]
        assert (bulk.documents, bulk.paused) == (2, 1)
        # The oldest of those that may be read
        assert 2 < (time.time() - bulk.oldest) / 86_400 < 4
        assert found.paused == {"drafts"}

    def test_the_age_of_a_retried_document_begins_with_the_retry(self, shelf: Shelf) -> None:
        shelf.store.put(keys.waiting("bulk", "c", "20200101T000000.000000Z", "0" * 32, 2), marker(2).to_bytes())

        found = waiting(shelf.store, Priority.BULK, frozenset())

        assert (found.documents, found.oldest) == (1, math.inf)

    def test_no_more_is_counted_than_the_limit(self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inventory_module, "LIMIT", 3)
        for _ in range(5):
            shelf.waiting()
            shelf.waiting(collection="paused")
        shelf.waiting(collection="old", day="20200101")

        found = waiting(shelf.store, Priority.BULK, frozenset({"paused"}))

        # But the first of each collection is read: it may be the oldest
        assert (found.documents, found.paused) == (4, 3)
        assert datetime.fromtimestamp(found.oldest, UTC).year == 2020

    def test_waiting_batches_webhooks_and_quarantined_pages_are_counted(self, shelf: Shelf) -> None:
        shelf.arrive("a.pdf")
        shelf.store.put(keys.outbox("20261122T000000.000000Z", "a" * 32), b"{}")
        shelf.store.put(keys.given_up("b" * 32), b"{}")
        shelf.store.put(keys.given_up("c" * 32), b"{}")
        shelf.store.put(keys.undelivered("d" * 32), b"{}")
        shelf.store.put(keys.quarantined("d" * 32, 7, 1), b"killed")

        found = take_inventory(shelf.store)

        assert found.arrivals == {Priority.INTERACTIVE: 0, Priority.BULK: 1}
        assert (found.webhooks_waiting, found.webhooks_given_up, found.undelivered, found.quarantined) == (1, 2, 1, 1)

    def test_a_moment_that_is_none_is_of_no_age(self) -> None:
        assert registered_at("yesterday") == math.inf
        assert registered_at("19700101T000001.500000Z") == 1.5


class TestLook:
    def test_pages_are_waiting_queued_or_running_and_never_twice(self, shelf: Shelf) -> None:
        # Given a document of ten pages: six handed over, of which two are read and one is in a worker's hand
        active = begun(shelf, pages=10, published=6, done=2)
        hold(shelf, active, 3)
        shelf.waiting()

        snapshot = FleetMonitor(shelf.settings, shelf.store, shelf.ledger).snapshot([active])

        bulk = snapshot.backlog[Priority.BULK]
        assert (bulk.waiting, bulk.queued, bulk.running) == (4 + 1, 3, 1)
        assert bulk.oldest > 0
        assert snapshot.backlog[Priority.INTERACTIVE].pages == 0
        # By one worker that is assumed, as there is none
        assert snapshot.speed == 0
        assert snapshot.seconds_left(Priority.BULK) == 9 / shelf.settings.pages_per_second

    def test_a_paused_collection_is_not_in_the_backlog(self, shelf: Shelf) -> None:
        active = begun(shelf, pages=10, published=6, collection="drafts")
        shelf.waiting(collection="drafts")
        shelf.registry.pause("drafts")

        bulk = FleetMonitor(shelf.settings, shelf.store, shelf.ledger).snapshot([active]).backlog[Priority.BULK]

        # Published pages are still read
        assert (bulk.waiting, bulk.queued) == (0, 6)

    def test_the_stored_count_of_waiting_pages_is_used(self, shelf: Shelf) -> None:
        shelf.waiting()
        shelf.registry.pause("drafts")
        shelf.ledger.counted({("bulk", "c"): 100, ("bulk", "drafts"): 7, ("interactive", "c"): 5})

        backlog = FleetMonitor(shelf.settings, shelf.store, shelf.ledger).snapshot([]).backlog

        assert (backlog[Priority.BULK].waiting, backlog[Priority.INTERACTIVE].waiting) == (100, 5)

    def test_the_oldest_age_is_that_of_pages_not_yet_begun(self, shelf: Shelf) -> None:
        active = begun(shelf, pages=2, published=2)
        hold(shelf, active, 1, 2)

        assert (
            FleetMonitor(shelf.settings, shelf.store, shelf.ledger).snapshot([active]).backlog[Priority.BULK].oldest
            == 0
        )

    def test_speed_is_that_of_the_workers_that_live(self, shelf: Shelf) -> None:
        shelf.ledger.heartbeat(state(pages=100, busy_seconds=50.0), 60)
        shelf.ledger.heartbeat(state(worker="new", profile="other"), 60)
        active = begun(shelf, pages=9, published=9)

        snapshot = FleetMonitor(shelf.settings, shelf.store, shelf.ledger).snapshot([active])
        seen = gauges_of(snapshot)

        assert snapshot.speed == 2 + shelf.settings.pages_per_second
        assert seen[metrics.WORKERS] == {(RAPIDOCR.name,): 1, ("other",): 1}
        assert seen[metrics.BACKLOG_SECONDS]["bulk",] == 9 / snapshot.speed
        assert seen[metrics.BACKLOG_PAGES]["bulk", "queued"] == 9
        assert seen[metrics.REDIS_MEMORY_USED][()] > 0

    def test_the_time_left_is_that_of_the_slowest_profile(self, shelf: Shelf) -> None:
        # Given documents of two profiles: one with two workers, and one with a worker that takes ten seconds a page
        slow = "5" * 64
        active = [begun(shelf, pages=30, published=6), begun(shelf, pages=10, published=6)]
        active[1].marker = active[1].marker.model_copy(update={"profile": "slow", "profile_digest": slow})
        for name in ("a", "b"):
            shelf.ledger.heartbeat(state(worker=name, pages=100, busy_seconds=100.0), 60)
        shelf.ledger.heartbeat(state(worker="c", profile="slow", profile_digest=slow, pages=10, busy_seconds=100.0), 60)
        shelf.ledger.counted({})
        monitor = FleetMonitor(shelf.settings, shelf.store, shelf.ledger)

        # Then the slow one's pages decide
        assert monitor.snapshot(active).seconds_left(Priority.BULK) == pytest.approx(100)
        # And waiting pages are taken to be of both profiles, as the active ones are
        shelf.ledger.counted({("bulk", "c"): 40})
        assert monitor.snapshot(active).seconds_left(Priority.BULK) == pytest.approx(200)
        # Or, without active ones, to be of those that workers serve
        assert monitor.snapshot([]).seconds_left(Priority.BULK) == pytest.approx(40 / 2.1)

    def test_the_store_is_not_listed_at_each_look(self, shelf: Shelf) -> None:
        monitor = FleetMonitor(shelf.settings, shelf.store, shelf.ledger, inventory_seconds=3600)
        assert monitor.snapshot([]).backlog[Priority.BULK].waiting == 0
        shelf.waiting()

        assert monitor.snapshot([]).backlog[Priority.BULK].waiting == 0
        assert FleetMonitor(shelf.settings, shelf.store, shelf.ledger).snapshot([]).backlog[Priority.BULK].waiting == 1

    def test_without_redis_there_is_no_snapshot(self, tmp_path: Path) -> None:
        away = Shelf(tmp_path)
        with pytest.raises(TransientError):
            FleetMonitor(away.settings, away.store, away.ledger).snapshot([])

    def test_the_oldest_batch_of_each_priority_has_an_age(self, shelf: Shelf) -> None:
        for hours in (1, 3):
            submitted = (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y%m%dT%H%M%S.%fZ")
            shelf.store.put(keys.arrival("bulk", f"c{hours}", submitted, "d" * 32), b"{}")

        seen = gauges_of(FleetMonitor(shelf.settings, shelf.store, shelf.ledger).snapshot([]))[metrics.OLDEST_ARRIVAL]

        assert seen["bulk",] == pytest.approx(3 * 3600, abs=600)
        assert seen["interactive",] == 0

    def test_each_gauge_has_the_labels_that_it_declares(self, shelf: Shelf) -> None:
        shelf.ledger.heartbeat(state(), 60)
        seen = gauges_of(FleetMonitor(shelf.settings, shelf.store, shelf.ledger).snapshot([]))
        assert all(len(labels) == len(gauge.labels) for gauge, values in seen.items() for labels in values)


class TestTop:
    def test_the_snapshot_equals_that_of_the_leader(self, shelf: Shelf) -> None:
        active = begun(shelf, pages=10, published=6, done=2)
        hold(shelf, active, 3)
        looking = Top(shelf.settings, shelf.store, shelf.ledger)

        lane = looking.look().fleet.backlog[Priority.BULK]

        assert (lane.waiting, lane.queued, lane.running) == (4, 3, 1)
        # And no worker serves it
        assert looking.look().fleet.profiles[RAPIDOCR.name].unserved == 1
        shelf.ledger.heartbeat(state(), 60)
        assert looking.look().fleet.profiles[RAPIDOCR.name].served
        looking.close()

    def test_half_idle_workers_have_one_speed_everywhere(self, shelf: Shelf) -> None:
        # Given workers that had pages for half of the time, and read one a second while they had any
        begun(shelf, pages=10, published=6, done=2)
        for name in ("a", "b"):
            busy = state(worker=name, seconds=100.0, busy_seconds=50.0, pages=50, starved_seconds=10.0)
            shelf.ledger.heartbeat(busy, 60)
        shelf.ledger.redis.set(keys.REDIS_DISPATCHER, b"leader")

        # When `status --collection`, `top`, the leader's gauges and the backlog limit are computed
        forecast = shelf.registry.when_done("c")
        top = Top(shelf.settings, shelf.store, shelf.ledger)
        snapshot = top.look().fleet
        top.close()
        gauges = gauges_of(snapshot)

        # Then all of them give 4 seconds for 8 pages, at 2 pages per second
        assert snapshot.speed == gauges[metrics.FLEET_SPEED][()] == 2
        assert forecast.seconds == snapshot.seconds_left(Priority.BULK) == gauges[metrics.BACKLOG_SECONDS]["bulk",] == 4
        assert not forecast.assumed
        limit = Backlog(shelf.ledger, shelf.settings.model_copy(update={"backlog_seconds": 1000.0})).limit()
        assert limit == 2000

    def test_a_worker_is_measured_between_two_looks(self, shelf: Shelf) -> None:
        looking = Top(shelf.settings, shelf.store, shelf.ledger)
        shelf.ledger.heartbeat(state(seconds=100.0, pages=50, tokens=5000, starved_seconds=1.0), 60)
        assert looking.look().rates["w"].pages == 0.5
        shelf.ledger.heartbeat(state(seconds=110.0, pages=80, tokens=8000, starved_seconds=2.0), 60)

        rate = looking.look().rate

        assert (rate.pages, rate.tokens, rate.starved) == (3.0, 300.0, 0.1)
        looking.close()

    def test_a_document_that_ended_and_came_back_is_read_again(self, shelf: Shelf) -> None:
        active = begun(shelf, pages=3, published=3)
        looking = Top(shelf.settings, shelf.store, shelf.ledger)
        looking.look()
        # When it has ended, and another generation of it is begun
        shelf.ledger.forget(active.document, 1)
        looking.look()
        shelf.store.put(keys.active(active.document), Marker.model_copy(marker(2)).to_bytes())
        shelf.ledger.seed(active.document, 2, total=3, done=[1, 2], failed=[])
        shelf.ledger.published(active.document, 2, 3)

        assert looking.look().fleet.backlog[Priority.BULK].queued == 1
        looking.close()

    def test_a_damaged_marker_is_left_out(self, shelf: Shelf) -> None:
        shelf.store.put(keys.active("e" * 32), b"?")
        looking = Top(shelf.settings, shelf.store, shelf.ledger)
        assert looking.look().fleet.active == 0
        looking.close()
