"""Finisher: results are delivered for all submissions, each webhook once, despite failures in between."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError, OcrfleetError, TransientError
from ocrfleet.records.documents import DocumentStatus, Status
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import Submission
from producer.delivery.finisher import Finisher
from producer.delivery.webhook_outbox import WebhookOutbox
from producer.documents.lookup import Lookup
from producer.errors import OccupiedError
from tests.support.shelf import Shelf
from tests.support.waiting import until

DAY = "20261122"


class Results:
    """Fake of S3Delivery: its bucket may be unreachable or deleted."""

    def __init__(self) -> None:
        self.delivered: list[str] = []
        self.raising: dict[str, list[Exception]] = {}

    def deliver(self, _: Status, submission: Submission) -> None:
        if self.raising.get(submission.name):
            raise self.raising[submission.name].pop(0)
        if submission.name not in self.delivered:
            self.delivered.append(submission.name)


class Desk:
    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf(folder)
        self.store = self.shelf.store
        self.results = Results()
        self.now = 0.0
        self.finisher = Finisher(
            self.store,
            self.results,  # type: ignore[arg-type]
            WebhookOutbox(self.store),
            clock=lambda: self.now,
        )

    def ended(self, *names: str, **terms: Any) -> str:
        """Return an ended document with submissions of these names, with results and a callback."""
        document = self.shelf.ended(names[0])
        (key,) = self.store.list(keys.wanted_by(document))
        self.first = Submission.from_bytes(self.store.get(key))
        self.store.delete(key)
        self.want(document, *names, **terms)
        return document

    def want(self, document: str, *names: str, **terms: Any) -> None:
        known = {"results": "s3://out/", "callback": "https://example.com/hook"} | terms
        for name in names:
            wanted = self.first.model_copy(update={"name": name, "terms": self.first.terms.model_copy(update=known)})
            self.store.put(keys.wanted(document, wanted.digest), wanted.to_bytes())

    def finish(self, document: str, *, seconds: float = 5) -> bool:
        """Ask until it is done; False when it still is not after a try that failed."""

        def answer() -> list[bool]:
            done = self.finisher.finish(document, 1)
            return [done] if done or self.finisher._begun == {} else []

        (done,) = until(answer, seconds=seconds, pause=0.005)
        return done

    def outbox(self) -> list[str]:
        return list(self.store.list(keys.OUTBOX))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.finisher.close()


def test_every_submission_gets_its_results_and_one_webhook(desk: Desk) -> None:
    document = desk.ended("a.pdf", "copy of a.pdf")
    for _ in range(3):
        assert desk.finish(document)
    assert sorted(desk.results.delivered) == ["a.pdf", "copy of a.pdf"]
    assert len(desk.outbox()) == 2
    assert desk.store.exists(keys.ended(DocumentStatus.COMPLETED, DAY, document))


def test_a_webhook_is_sent_for_a_submission_of_a_delivered_document(desk: Desk) -> None:
    # Given a document that was delivered for a submission without a callback
    document = desk.ended("a.pdf", callback=None)
    assert desk.finish(document)
    assert desk.outbox() == []
    # When it is submitted under the same name with a callback
    desk.want(document, "a.pdf")
    assert desk.finish(document)
    # Then the webhook is sent, although there is nothing left to deliver
    assert desk.results.delivered == ["a.pdf"]
    assert len(desk.outbox()) == 1


def test_a_sent_webhook_is_not_repeated_after_a_restart(desk: Desk) -> None:
    document = desk.ended("a.pdf")
    assert desk.finish(document)
    (delivery,) = desk.outbox()
    desk.store.delete(delivery)  # the receiver answered
    assert desk.finish(document)
    assert desk.outbox() == []


@pytest.mark.parametrize("error", [TransientError("away"), ValueError("a fault of ours")], ids=["away", "a fault"])
def test_a_failed_finish_is_repeated_after_a_pause_and_affects_no_other(desk: Desk, error: Exception) -> None:
    document, other = desk.ended("a.pdf"), desk.ended("b.pdf")
    desk.results.raising["a.pdf"] = [error]
    assert not desk.finish(document)
    assert desk.finish(other)
    # Not at once, but when its time has come
    assert not desk.finish(document)
    assert "a.pdf" not in desk.results.delivered
    desk.now += 60
    assert desk.finish(document)
    assert "a.pdf" in desk.results.delivered


@pytest.mark.parametrize(
    "error", [ConfigurationError("the bucket doesn't exist"), OccupiedError("a person's file is there")]
)
def test_an_unusable_bucket_delays_no_other_delivery(desk: Desk, error: OcrfleetError) -> None:
    document = desk.ended("a.pdf", "b.pdf")
    desk.results.raising["a.pdf"] = [error]
    assert desk.finish(document)
    assert desk.results.delivered == ["b.pdf"]
    assert len(desk.outbox()) == 1
    assert desk.store.exists(keys.ended(DocumentStatus.COMPLETED, DAY, document))
    # The document shows the error to correct
    assert Lookup(desk.store, None).view(document).undelivered == str(error)
    # When it is corrected, the document is delivered, and waiting clients are notified
    desk.finisher._try_undelivered()
    assert desk.results.delivered == ["b.pdf", "a.pdf"]
    assert len(desk.outbox()) == 2
    assert Lookup(desk.store, None).view(document).undelivered is None
    assert list(desk.store.list(keys.UNDELIVERED)) == []


def test_a_document_that_was_deleted_meanwhile_is_done_with(desk: Desk) -> None:
    document = desk.ended("a.pdf")
    desk.store.delete(keys.manifest(document))
    assert desk.finish(document)
    assert desk.results.delivered == []


def test_an_end_is_counted_with_the_time_since_its_latest_submission(desk: Desk) -> None:
    def counted() -> tuple[float, float, float]:
        ended = REGISTRY.get_sample_value("ocrfleet_documents_ended_total", {"status": "completed"})
        count, total = (
            REGISTRY.get_sample_value(f"ocrfleet_turnaround_seconds_{part}", {"queue": "interactive"})
            for part in ("count", "sum")
        )
        return ended or 0.0, count or 0.0, total or 0.0

    # Given a document with an old submission, and another one ten seconds ago
    document = desk.ended("a.pdf", callback=None)
    lately = datetime.now(UTC) - timedelta(seconds=10)
    late = desk.first.model_copy(
        update={
            "name": "late.pdf",
            "submitted": lately.strftime("%Y%m%dT%H%M%S.%fZ"),
            "terms": desk.first.terms.model_copy(update={"queue": Priority.INTERACTIVE}),
        }
    )
    desk.store.put(keys.wanted(document, late.digest), late.to_bytes())
    ended, count, total = counted()
    # When it could not be finished at first, then is
    desk.results.raising = {"a.pdf": [TransientError("away")]}
    assert not desk.finish(document)
    assert counted() == (ended, count, total)
    desk.now += 11
    assert desk.finish(document)
    # Then that is one end
    assert counted()[:2] == (ended + 1, count + 1)
    assert 10 <= counted()[2] - total <= (datetime.now(UTC) - lately).total_seconds()
