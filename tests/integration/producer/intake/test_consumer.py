"""Intake consumer: batches become documents, also with damaged sources and when delivered twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import keys
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.errors import Reason, TransientError
from ocrfleet.records.documents import Manifest, Source
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeBatch, SourceReference, SubmissionOptions
from ocrfleet.sources.sources import uri_of
from producer.intake import consumer
from producer.intake import scheduler as module
from producer.intake.batches import IntakeBatches, client_of, short_client
from producer.intake.consumer import IntakeConsumer
from producer.intake.places import Places
from producer.intake.scheduler import IntakeScheduler
from producer.state.profiles import save_profile
from tests.support.fakes.numbered import write_book
from tests.support.servers import Valkey
from tests.support.stage import Stage


@pytest.fixture
def stage(tmp_path: Path, valkey: Valkey) -> Iterator[Stage]:
    made = Stage(tmp_path, valkey)
    save_profile(made.store, made.profile)
    yield made
    made.close()


def terms(stage: Stage, *, queue: Priority = Priority.BULK, collection: str = "c") -> SubmissionOptions:
    return SubmissionOptions(profile_digest=stage.profile.digest, queue=queue, collection=collection)


def wish(stage: Stage, name: str, *numbers: int) -> SourceReference:
    path = write_book(stage.folder / name, list(numbers)) if numbers else stage.folder / name
    size = path.stat().st_size if path.exists() else 0
    return SourceReference(
        name=name, uri=uri_of(path), size=size, mtime_ns=path.stat().st_mtime_ns if path.exists() else 0
    )


def manifests(stage: Stage) -> list[Manifest]:
    listed = stage.store.list("documents/")
    return [Manifest.from_bytes(stage.store.get(key)) for key in listed if key.endswith("/manifest.json")]


def test_an_intake_batch_delivered_repeatedly_registers_its_documents_once(stage: Stage) -> None:
    wishes = [wish(stage, "a.tif", 1, 2), wish(stage, "b.tif", 3), wish(stage, "gone.tif")]
    (stage.folder / "text.tif").write_text("no image")
    wishes.append(wish(stage, "text.tif"))
    clerk = IntakeConsumer(stage.store, stage.ledger, stage.intake)
    for _ in range(3):
        clerk.process(IntakeBatches(stage.store).add(terms(stage), wishes))
    # Then each is a document, also those that can't be read, with the reason
    assert sorted(m.total for m in manifests(stage)) == [0, 0, 1, 2]
    assert {m.problem.reason for m in manifests(stage) if m.problem} <= {
        Reason.UNREADABLE,
        Reason.UNSUPPORTED,
        Reason.SOURCE_MISSING,
    }
    assert len(list(stage.store.list(keys.submissions("c")))) == 4
    assert len(list(stage.store.list(keys.WAITING))) == 4
    assert list(stage.store.list("arrivals/")) == []


def test_an_unparsable_intake_batch_is_moved_aside_and_delays_no_other(stage: Stage) -> None:
    damaged = keys.arrival("bulk", "c", "20261125T000000.000000Z", "0" * 64)
    stage.store.put(damaged, b'{"schema_version": 99}')
    clerk = IntakeConsumer(stage.store, stage.ledger, stage.intake)
    clerk.process(damaged)
    assert stage.store.get(keys.refused(damaged)) == b'{"schema_version": 99}'
    assert list(stage.store.list("arrivals/")) == []


def test_a_stopped_intake_consumer_returns_its_batch_to_the_next_one(stage: Stage) -> None:
    key = IntakeBatches(stage.store).add(terms(stage), [wish(stage, "a.tif", 1)])
    leaving = IntakeConsumer(stage.store, stage.ledger, stage.intake)
    leaving.drain()
    with pytest.raises(TransientError, match="drains"):
        leaving.process(key)
    assert IntakeBatch.from_bytes(stage.store.get(key)).wishes
    IntakeConsumer(stage.store, stage.ledger, stage.intake).process(key)
    assert len(manifests(stage)) == 1


def test_a_source_that_can_not_be_taken_in_now_keeps_no_other_waiting(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given three sources, the second on a server that does not respond
    wishes = [wish(stage, "a.tif", 1), wish(stage, "b.tif", 2), wish(stage, "c.tif", 3)]
    key = IntakeBatches(stage.store).add(terms(stage), wishes)
    away, inspect, asked = [True], stage.intake.inspect, []

    def asked_for(one: SourceReference, **options: Any) -> Source:
        asked.append(one.name)
        if one.name == "b.tif" and away:
            raise TransientError("its server is away")
        return inspect(one, **options)

    monkeypatch.setattr(stage.intake, "inspect", asked_for)
    clerk = IntakeConsumer(stage.store, stage.ledger, stage.intake)
    for _ in range(2):
        with pytest.raises(TransientError, match=r"1 of \d sources are left: its server is away"):
            clerk.process(key)
    # Then the others are documents, and only that source is left
    assert len(manifests(stage)) == 2
    assert [one.name for one in IntakeBatch.from_bytes(stage.store.get(key)).wishes] == ["b.tif"]
    assert asked == ["a.tif", "b.tif", "c.tif", "b.tif"]
    # Until it is reachable
    away.clear()
    clerk.process(key)
    assert len(manifests(stage)) == 3
    assert list(stage.store.list("arrivals/")) == []


def test_arrivals_are_published_interactive_ones_first_and_collections_in_turn(stage: Stage) -> None:
    arrivals = IntakeBatches(stage.store)
    for number in range(30):
        arrivals.add(terms(stage, collection="huge"), [wish(stage, f"{number}.tif", number)])
    small = arrivals.add(terms(stage, collection="small"), [wish(stage, "small.tif", 100)])
    fast = arrivals.add(terms(stage, queue=Priority.INTERACTIVE, collection="z"), [wish(stage, "fast.tif", 101)])
    now = [0.0]
    receiver = IntakeScheduler(stage.store, stage.ledger, stage.app, clock=lambda: now[0])
    # When there is room for some
    count = receiver.tick()
    published = MessageInspector(stage.ledger.redis)
    assert count == len(published.intakes()) < 30
    assert {small, fast} <= published.intakes()
    # Then published jobs are not published again, and lost ones are, after a while
    assert receiver.tick() == receiver.tick() == 0
    stage.valkey.client.flushall()
    receiver.tick()
    assert not {small, fast} & published.intakes()
    stage.valkey.client.flushall()
    now[0] += 10
    for _ in range(2):
        receiver.tick()
    assert {small, fast} <= published.intakes()


def test_arrivals_are_published_by_tenants_in_turn_and_no_client_fills_the_queue(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a tenant that made up twenty collections, and another one that came later
    arrivals = IntakeBatches(stage.store)
    greedy = {
        arrivals.add_followed(terms(stage, collection=f"acme~c{number}"), wish(stage, f"{number}.tif"), client="acme")
        for number in range(20)
    }
    other = {
        arrivals.add_followed(terms(stage, collection="beta~c"), wish(stage, f"b{number}.tif"), client="beta")
        for number in range(2)
    }
    published = MessageInspector(stage.ledger.redis)

    def names() -> set[str]:
        return {keys.arrival_name(key) for key in published.intakes()}

    # When there is room for sixteen batches, then the tenants take turns, and the first one leaves room for others
    scheduler = IntakeScheduler(stage.store, stage.ledger, stage.app)
    scheduler.tick()
    assert other < names()
    assert len(names() & greedy) == 12
    assert scheduler.tick() == 0
    # And when there is room for one, then each second time it is the other tenant's
    stage.valkey.client.flushall()
    monkeypatch.setattr(module, "_MAX_IN_FLIGHT", 1)
    scheduler = IntakeScheduler(stage.store, stage.ledger, stage.app)
    turns = []
    for _ in range(4):
        scheduler.tick()
        turns.append(names() <= other)
        (key,) = published.intakes()
        stage.store.delete(key)
        stage.valkey.client.flushall()
        scheduler.tick()
    assert sorted(turns) == [False, False, True, True]
    assert turns[0] != turns[1]


def test_a_client_leaves_a_thread_of_a_consumer_to_others(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a consumer with two threads, one of which a client holds
    batches = IntakeBatches(stage.store)
    first, second = (
        keys.arrival("bulk", "c", "20261125T000000.000000Z", short_client("greedy") + digit * 24) for digit in "12"
    )
    batches.add_followed(terms(stage), wish(stage, "a.tif", 1), client="other")
    (other,) = stage.store.list("arrivals/")
    monkeypatch.setattr(consumer, "_PATIENCE", 0.0)
    places, clerk = Places(2), IntakeConsumer(stage.store, stage.ledger, stage.intake)
    with places.taken(client_of(first), seconds=0) as has_place:
        assert has_place
        # When its next batch comes, then that goes to the end of the queue
        consumer._process_in_turn(clerk, second, places, stage.app)
        assert MessageInspector(stage.ledger.redis).intakes() == {second}
        # And another client's batch is processed
        consumer._process_in_turn(clerk, other, places, stage.app)
        assert len(manifests(stage)) == 1
    # And when it holds none, its own is
    stage.store.put(second, b"damaged")
    consumer._process_in_turn(clerk, second, places, stage.app)
    assert stage.store.get(keys.refused(second)) == b"damaged"


def test_sources_are_opened_in_the_name_of_their_client(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given sources of a client of the default tenant, of a tenant, and of a command
    batches = IntakeBatches(stage.store)
    batches.add_followed(terms(stage, collection="a"), wish(stage, "a.tif", 1), client="a-token")
    batches.add(terms(stage, collection="acme~b"), [wish(stage, "b.tif", 2)])
    batches.add(terms(stage, collection="c"), [wish(stage, "c.tif", 3)])
    inspect, clients = stage.intake.inspect, {}

    def inspected(one: SourceReference, *, client: str, **options: Any) -> Source:
        clients[one.name] = client
        return inspect(one, client=client, **options)

    monkeypatch.setattr(stage.intake, "inspect", inspected)
    for key in list(stage.store.list("arrivals/")):
        IntakeConsumer(stage.store, stage.ledger, stage.intake).process(key)
    assert clients == {"a.tif": "a-token", "b.tif": "acme", "c.tif": ""}


def test_a_postponed_batch_waits_longer_each_time_and_delays_no_other(stage: Stage) -> None:
    # Given more intake batches than the limit of published jobs, on a server that does not respond
    arrivals = IntakeBatches(stage.store)
    gone = {arrivals.add(terms(stage), [wish(stage, f"{number}.tif", number)]) for number in range(20)}
    now = [0.0]
    receiver = IntakeScheduler(stage.store, stage.ledger, stage.app, clock=lambda: now[0])
    published = MessageInspector(stage.ledger.redis)

    def come_back() -> set[str]:
        """A job of an intake consumer that can't finish now."""
        back = published.intakes()
        stage.valkey.client.delete(keys.QUEUE_INTAKE)
        receiver.tick()  # it may have been on its way
        return back

    receiver.tick()
    first = come_back()
    assert (len(first), first < gone) == (16, True)
    # When another one arrives in the same collection, it goes, and so do those that were not tried
    other = arrivals.add(terms(stage), [wish(stage, "other.tif", 100)])
    receiver.tick()
    assert published.intakes() == (gone - first) | {other}
    come_back()
    # And a returned batch is published again, with backoff
    tried, *others = sorted(first)
    for key in (*others, *(gone - first), other):
        stage.store.delete(key)
    rests = []
    for _ in range(12):
        begun = now[0]
        while tried not in published.intakes():
            now[0] += 1
            receiver.tick()
        rests.append(now[0] - begun)
        come_back()
        receiver.tick()
    assert rests[:4] == [2, 4, 8, 16]
    assert rests[-1] == 300
    # And a new scheduler does not wait for that
    assert IntakeScheduler(stage.store, stage.ledger, stage.app).tick() == 1


def test_a_batch_with_unreachable_sources_is_postponed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given twelve sources, ten of them on a server that does not respond for long
    wishes = [wish(stage, f"{number:02}.tif", number) for number in range(12)]
    key = IntakeBatches(stage.store).add(terms(stage), wishes)
    inspect, asked = stage.intake.inspect, []

    def asked_for(one: SourceReference, **options: Any) -> Source:
        asked.append(one.name)
        if one.name < "10":
            raise TransientError("its server is away")
        return inspect(one, **options)

    monkeypatch.setattr(stage.intake, "inspect", asked_for)
    clerk = IntakeConsumer(stage.store, stage.ledger, stage.intake)
    # When the batch is registered, the intake consumer stops after some unreachable sources
    with pytest.raises(TransientError, match="12 of 12 sources are left"):
        clerk.process(key)
    assert len(asked) == 5
    # Then the next time begins with the others, and comes to those that can be had
    for left in ("12 of 12", "10 of 12"):
        with pytest.raises(TransientError, match=f"{left} sources are left"):
            clerk.process(key)
    assert len(manifests(stage)) == 2
    assert [one.name for one in IntakeBatch.from_bytes(stage.store.get(key)).wishes][-1] == "04.tif"
