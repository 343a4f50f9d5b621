"""Webhook outbox: each event is sent at least once despite crashes, for at most a day."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from ocrfleet import keys
from ocrfleet.records.documents import DocumentStatus, Status
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import Submission, SubmissionOptions
from ocrfleet.storage.store import FolderStore
from producer.delivery.webhook import DeliveryResult
from producer.delivery.webhook_outbox import WebhookDelivery, WebhookOutbox, WebhookSender
from tests.support.waiting import scaled, until

DOCUMENT = "0" * 32


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 25, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Receivers:
    """Fake of WebhookClient: each host gives its configured response, or blocks."""

    def __init__(self) -> None:
        self.answers: dict[str, DeliveryResult] = {}
        self.blocked: dict[str, threading.Event] = {}
        self.told: list[tuple[str, str]] = []

    def send(self, url: str, delivery: str, _body: bytes, **_options: object) -> tuple[DeliveryResult, str]:
        host = url.split("/")[2]
        if host in self.blocked:
            self.blocked[host].wait(scaled(10))
        self.told.append((host, delivery))
        return self.answers.get(host, DeliveryResult.DELIVERED), "as told"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def outbox(store: FolderStore, clock: Clock) -> WebhookOutbox:
    return WebhookOutbox(store, clock=clock)


def ended(number: int = 0, *, host: str = "a.example", generation: int = 1) -> tuple[Status, Submission]:
    status = Status(
        document=DOCUMENT,
        generation=generation,
        status=DocumentStatus.COMPLETED,
        total=1,
        done=1,
        outputs={},
    )
    terms = SubmissionOptions(
        profile_digest="0" * 64,
        queue=Priority.BULK,
        collection="c",
        callback=f"https://{host}/hook",
        results="s3://out/",
    )
    submission = Submission(
        name=f"{number}.pdf",
        document=DOCUMENT,
        uri=f"s3://in/{number}.pdf",
        submitted="20261125T110000.000000Z",
        terms=terms,
    )
    return status, submission


def run(outbox: WebhookOutbox, receivers: Receivers, *, rounds: int = 1) -> None:
    for _ in range(rounds):
        with WebhookSender(outbox, receivers).running() as sender:  # type: ignore[arg-type]
            sender.run_due()


def test_a_delivered_webhook_is_removed_from_the_outbox(outbox: WebhookOutbox, store: FolderStore) -> None:
    receivers = Receivers()
    outbox.add(*ended())
    run(outbox, receivers, rounds=3)
    assert [host for host, _ in receivers.told] == ["a.example"]
    assert list(store.list(keys.OUTBOX)) == []


def test_the_same_end_is_noted_once_while_it_waits_and_another_generation_is_another(
    outbox: WebhookOutbox, store: FolderStore
) -> None:
    for _ in range(3):
        outbox.add(*ended())
    outbox.add(*ended(generation=2))
    assert len(list(store.list(keys.OUTBOX))) == 2


def test_a_failing_receiver_is_tried_for_a_day_with_growing_pauses_and_then_given_up(
    outbox: WebhookOutbox, store: FolderStore, clock: Clock
) -> None:
    receivers = Receivers()
    receivers.answers["a.example"] = DeliveryResult.FAILED
    outbox.add(*ended())
    begun, tries = clock.now, []
    while list(store.list(keys.OUTBOX)):
        before = len(receivers.told)
        run(outbox, receivers)
        if len(receivers.told) > before:
            tries.append(clock.now - begun)
        clock.now += timedelta(seconds=5)
        assert clock.now - begun < timedelta(days=2)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert 8 <= len(tries) <= 20
    assert all(longer > shorter for shorter, longer in itertools.pairwise(pauses[:5]))
    assert timedelta(days=1) <= tries[-1] < timedelta(days=1, hours=5)
    # Every attempt had the same id, and the failed delivery is kept
    assert len({delivery for _, delivery in receivers.told}) == 1
    given_up = WebhookDelivery.from_bytes(store.get(keys.given_up(receivers.told[0][1])))
    assert given_up.attempts == len(tries)


def test_a_receiver_that_answers_410_gets_no_further_attempt(
    outbox: WebhookOutbox, store: FolderStore, clock: Clock
) -> None:
    receivers = Receivers()
    receivers.answers["a.example"] = DeliveryResult.GONE
    outbox.add(*ended())
    run(outbox, receivers)
    clock.now += timedelta(days=1)
    run(outbox, receivers)
    assert len(receivers.told) == 1
    assert list(store.list(keys.OUTBOX)) == []


def test_a_crash_after_sending_repeats_the_webhook_with_the_same_id(outbox: WebhookOutbox, store: FolderStore) -> None:
    receivers = Receivers()
    outbox.add(*ended())
    # Given a sender that was killed after the receiver had answered
    ((_, delivery),) = outbox.due()
    receivers.send(delivery.url, delivery.id, b"")
    # When another one takes over
    run(outbox, receivers)
    assert len(receivers.told) == 2
    assert len({delivery for _, delivery in receivers.told}) == 1


def test_a_receiver_that_hangs_keeps_no_other_waiting(outbox: WebhookOutbox) -> None:
    receivers = Receivers()
    receivers.blocked["slow.example"] = threading.Event()
    for number in range(20):
        outbox.add(*ended(number, host="slow.example"))
    outbox.add(*ended(99, host="quick.example"))
    with WebhookSender(outbox, receivers).running() as sender:  # type: ignore[arg-type]
        until(
            lambda: "quick.example" in {host for host, _ in receivers.told},
            seconds=5,
            pause=0.01,
            meanwhile=sender.run_due,
        )
        assert {host for host, _ in receivers.told} == {"quick.example"}
        receivers.blocked["slow.example"].set()


def test_a_damaged_delivery_harms_no_other(outbox: WebhookOutbox, store: FolderStore) -> None:
    receivers = Receivers()
    store.put(keys.outbox("20200101T000000.000000Z", "f" * 32), b"{")
    outbox.add(*ended())
    before = REGISTRY.get_sample_value("ocrfleet_damaged_records_total") or 0.0
    run(outbox, receivers)
    assert len(receivers.told) == 1
    assert (REGISTRY.get_sample_value("ocrfleet_damaged_records_total") or 0.0) > before
