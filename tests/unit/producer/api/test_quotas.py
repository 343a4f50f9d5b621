"""Quotas of pages and bytes a day, of a client and of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pydantic import SecretStr

from ocrfleet import keys
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import PermanentError, Reason, TransientError
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.documents import Manifest
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeOutcome, SourceReference, SubmissionOptions
from ocrfleet.settings import ApiSettings
from ocrfleet.sources.sources import Sources, uri_of
from producer.intake import quotas as module
from producer.intake.batches import IntakeBatches
from producer.intake.consumer import IntakeConsumer
from producer.intake.inspect import Intake
from producer.intake.quotas import QuotaError, Quotas
from producer.intake.register import Registration
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
    # When a client has made up as many collections as it may, it has no more, but can use those
    with pytest.raises(QuotaError, match="too many collections"):
        quotas.take("client", "c4", pages=1, size=1)
    quotas.take("client", "c0", pages=1, size=1)
    (key,) = ledger.redis.keys("ocrfleet:quotas:*")
    assert ledger.redis.ttl(key) > 0
    assert ledger.redis.hlen(key) == 5
    # And another client has as many
    for number in range(4, 8):
        quotas.take("other", f"c{number}", pages=1, size=1)
    with pytest.raises(QuotaError, match="too many collections"):
        quotas.take("other", "c8", pages=1, size=1)


def test_what_is_given_back_after_midnight_leaves_no_negative_counter(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(valkey.url)
    quotas = Quotas(ApiSettings(pages_a_day=3, collection_pages_a_day=3), ledger)
    # Given pages that were taken yesterday, and as many of today
    monkeypatch.setattr(module, "_today", lambda: "20261129")
    day = quotas.take("client", "c", pages=3, size=1)
    monkeypatch.setattr(module, "_today", lambda: "20261130")
    quotas.take("client", "c", pages=2, size=1)
    # When those of yesterday are given back, also twice
    for _ in range(2):
        quotas.give_back("client", "c", pages=3, size=1, day=day)
    # Then today's are as they were, and no day has more than the quota
    yesterday, today = (ledger.redis.hgetall(keys.redis_quotas(each)) for each in ("20261129", "20261130"))
    assert (yesterday[b"of/client/pages"], yesterday[b"in/c/pages"]) == (b"0", b"0")
    assert (today[b"of/client/pages"], today[b"in/c/pages"]) == (b"2", b"2")


def test_without_quotas_nothing_is_counted(valkey: Valkey) -> None:
    ledger = Ledger(valkey.url)
    quotas = Quotas(ApiSettings(), ledger)
    quotas.check("client", 10**12)
    quotas.take("client", "c", pages=10**6, size=10**12)
    assert ledger.redis.keys("ocrfleet:quotas:*") == []


def submit_source(front: Front, path: Path, data: bytes, *, size: int | None = None) -> str:
    """Store a source that a client named over HTTP when it had this size; return its name."""
    path.write_bytes(data)
    options = SubmissionOptions(profile_digest=save_profile(front.store, RAPIDOCR), queue=Priority.BULK, collection="c")
    reference = SourceReference(name=path.name, uri=uri_of(path), size=len(data) if size is None else size)
    return IntakeBatches(front.store).add_followed(options, reference, client="someone")


@contextmanager
def consumer(front: Front) -> Iterator[IntakeConsumer]:
    intake = Intake(front.settings, front.store, Sources(front.settings, front.store))
    quotas = Quotas(front.settings.api, front.shelf.ledger)
    with closing(intake):
        yield IntakeConsumer(front.store, front.shelf.ledger, intake, quotas)


def outcome(front: Front, name: str) -> IntakeOutcome:
    return IntakeOutcome.from_bytes(front.store.get(keys.asked(name)))


def test_the_pages_of_a_source_are_taken_at_intake(serve: Callable[..., Front], tmp_path: Path) -> None:
    # Given a source that was submitted by a client with a quota, and has more pages
    front = serve(pages_a_day=2)
    name = submit_source(front, tmp_path / "a.pdf", pdf(3))
    # When it is taken in
    with consumer(front) as one:
        for key in list(front.store.list("arrivals/")):
            one.process(key)
    # Then it does not become a document, and its client gets the reason
    assert outcome(front, name).document is None
    assert "is 2 pages a day" in (outcome(front, name).refused or "")
    assert list(front.store.list("documents/")) == []


def test_what_a_source_takes_is_taken_once_however_often_its_batch_is_tried(
    serve: Callable[..., Front], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a source that has grown by ten bytes since it was submitted
    front = serve(pages_a_day=3, bytes_a_day=100)
    name = submit_source(front, tmp_path / "a.pdf", pdf(3), size=len(pdf(3)) - 10)
    (key,) = front.store.list("arrivals/")
    # When it can't be registered at first
    with consumer(front) as one:
        with monkeypatch.context() as away:
            away.setattr(Registration, "_settle", Mock(side_effect=TransientError("the store is away")))
            for _ in range(2):
                with pytest.raises(TransientError):
                    one.process(key)
        one.process(key)
    # Then it is a document, and its pages and those bytes are taken once
    assert outcome(front, name).document is not None
    (counters,) = front.shelf.ledger.redis.keys("ocrfleet:quotas:*")
    taken = front.shelf.ledger.redis.hgetall(counters)
    assert (taken[b"of/someone/pages"], taken[b"of/someone/bytes"]) == (b"3", b"10")


def refusal(front: Front, name: str) -> str:
    """Return why a source that was taken in is a document that is too large."""
    document = outcome(front, name).document
    assert document is not None
    problem = Manifest.from_bytes(front.store.get(keys.manifest(document))).problem
    assert problem is not None
    assert problem.reason is Reason.TOO_LARGE
    return problem.detail


def test_a_source_of_too_many_pages_is_a_document_without_pages(serve: Callable[..., Front], tmp_path: Path) -> None:
    front = serve(upload_pages=2)
    name = submit_source(front, tmp_path / "a.pdf", pdf(3))
    with consumer(front) as one:
        for key in list(front.store.list("arrivals/")):
            one.process(key)
    assert "3 pages to be read, and 2 are allowed" in refusal(front, name)


def test_a_source_that_has_grown_beyond_the_limit_is_not_fetched(
    serve: Callable[..., Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a source that was replaced by a larger one since it was submitted
    front = serve(upload_bytes=10)
    options = SubmissionOptions(profile_digest=save_profile(front.store, RAPIDOCR), queue=Priority.BULK, collection="c")
    submitted = SourceReference(name="a.pdf", uri="s3://b/a.pdf", size=5, etag="old")
    name = IntakeBatches(front.store).add_followed(options, submitted, client="someone")
    now = {"old": submitted, None: submitted.model_copy(update={"etag": "new", "size": 11})}
    changed = PermanentError(Reason.SOURCE_CHANGED, "the source changed")
    monkeypatch.setattr(Sources, "looked_up", lambda _, reference: now[reference.etag])
    fetched = Mock(side_effect=changed)
    monkeypatch.setattr(Sources, "fetched", fetched)
    # When it is taken in
    with consumer(front) as one:
        for key in list(front.store.list("arrivals/")):
            one.process(key)
    # Then only the earlier one was asked for
    assert "11 bytes, and 10 are allowed" in refusal(front, name)
    assert [call.args[0].etag for call in fetched.call_args_list] == ["old"]
