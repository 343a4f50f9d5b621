"""Quotas of pages and bytes a day, of a client and of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ocrfleet import keys
from ocrfleet.broker.ledger import Ledger
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeOutcome, SourceReference, SubmissionOptions
from ocrfleet.settings import ApiSettings
from ocrfleet.sources.sources import Sources, uri_of
from producer.intake import quotas as module
from producer.intake.consumer import IntakeConsumer
from producer.intake.inspect import Intake
from producer.intake.quotas import QuotaError, Quotas
from producer.state.profiles import save_profile
from tests.support.servers import Valkey
from tests.unit.producer.api.test_api import OTHER, TOKEN, Front, pdf, problem


@pytest.fixture
def serve(tmp_path: Path, valkey: Valkey) -> Iterator[Callable[..., Front]]:
    made: list[Front] = []

    def make(**api: Any) -> Front:
        made.append(Front(tmp_path, redis=valkey.url, tokens=SecretStr(f"{TOKEN},{OTHER}"), **api))
        return made[-1]

    yield make
    for front in made:
        front.close()


def send(front: Front, data: Any, *, token: str = TOKEN, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/pdf"}
    return front.client.post("/v1/documents", content=data, headers=headers, params=options or None)


def test_a_client_that_spent_its_pages_waits_for_the_next_day(serve: Callable[..., Front]) -> None:
    front = serve(pages_a_day=5)
    assert send(front, pdf(3)).status_code == 201
    # When more is sent than is left
    refused = send(front, pdf(4))
    # Then it is said what is left, and when there is more
    said = problem(refused, 429)["detail"]
    assert "The quota of your token is 5 pages a day, of which 2 are left, and this needs 4" in said
    assert "00:00 UTC" in said
    assert 0 < int(refused.headers["retry-after"]) <= 24 * 3600
    # And what is left can be used; other clients have their own
    assert send(front, pdf(2)).status_code == 201
    problem(send(front, pdf(1)), 429)
    assert send(front, pdf(4), token=OTHER).status_code == 201
    # And what no day has room for is refused for good
    assert "retry-after" not in send(front, pdf(6)).headers
    problem(send(front, pdf(6)), 403)
    # And only the selected pages count
    assert send(front, pdf(9), token=OTHER, pages="9").status_code == 201


def test_a_client_that_spent_its_bytes_is_refused_before_they_are_received(serve: Callable[..., Front]) -> None:
    data = pdf()
    front = serve(bytes_a_day=2 * len(data) - 10)
    assert send(front, data).status_code == 201
    problem(send(front, data), 429)
    # Without a length, it is refused afterwards, and nothing is kept
    problem(send(front, iter([data])), 429)
    assert len([key for key in front.store.list(keys.UPLOADS) if ".refs/" not in key]) == 1


def test_a_collection_has_a_quota_of_its_own(serve: Callable[..., Front]) -> None:
    front = serve(collection_pages_a_day=3)
    assert send(front, pdf(3), collection="a").status_code == 201
    assert "The quota of the collection a is 3 pages" in problem(send(front, pdf(1), collection="a"), 429)["detail"]
    assert send(front, pdf(3), collection="b").status_code == 201


def test_what_was_not_registered_is_given_back(serve: Callable[..., Front], monkeypatch: pytest.MonkeyPatch) -> None:
    front = serve(pages_a_day=3)
    with monkeypatch.context() as broken:
        broken.setattr(front.app.state.context.submitter, "_register", None)
        problem(send(front, pdf(3)), 500)
    assert send(front, pdf(3)).status_code == 201


def test_the_counters_are_few_and_expire(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_COUNTERS", 4)
    ledger = Ledger(valkey.url)
    quotas = Quotas(ApiSettings(collection_pages_a_day=3), ledger)
    for number in range(4):
        quotas.take("client", f"c{number}", pages=1, size=1)
    with pytest.raises(QuotaError, match="too many collections"):
        quotas.take("client", "c4", pages=1, size=1)
    quotas.take("client", "c0", pages=1, size=1)
    (key,) = ledger.redis.keys("ocrfleet:quotas:*")
    assert ledger.redis.ttl(key) > 0
    assert ledger.redis.hlen(key) == 4


def test_without_quotas_nothing_is_counted(valkey: Valkey) -> None:
    ledger = Ledger(valkey.url)
    quotas = Quotas(ApiSettings(), ledger)
    quotas.check("client", 10**12)
    quotas.take("client", "c", pages=10**6, size=10**12)
    assert not quotas.limited
    assert ledger.redis.keys("ocrfleet:quotas:*") == []


def test_the_pages_of_a_source_are_taken_at_intake(serve: Callable[..., Front], tmp_path: Path) -> None:
    # Given a source that was submitted by a client with a quota, and has more pages
    front = serve(pages_a_day=2)
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf(3))
    submitter, store = front.app.state.context.submitter, front.store
    options = SubmissionOptions(profile_digest=save_profile(store, RAPIDOCR), queue=Priority.BULK, collection="c")
    reference = SourceReference(name="a.pdf", uri=uri_of(path), size=path.stat().st_size)
    name = submitter._batches.add_followed(options, reference, client="someone")
    # When it is taken in
    intake = Intake(front.settings, store, Sources(front.settings, store))
    consumer = IntakeConsumer(store, front.shelf.ledger, intake, Quotas(front.settings.api, front.shelf.ledger))
    for key in list(store.list("arrivals/")):
        consumer.process(key)
    intake.close()
    # Then it does not become a document, and its client gets the reason
    outcome = IntakeOutcome.from_bytes(store.get(keys.asked(name)))
    assert outcome.document is None
    assert "is 2 pages a day" in (outcome.refused or "")
    assert list(store.list("documents/")) == []
