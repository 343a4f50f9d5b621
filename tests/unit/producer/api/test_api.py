"""The HTTP API over a store with documents in every state, and without Redis."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymupdf
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError, Reason, TransientError
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.documents import DocumentStatus, Output, Status
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeBatch, SourceReference, Submission
from ocrfleet.settings import ApiSettings, S3Settings
from ocrfleet.sources.sources import OWN_OUTPUT, Sources
from ocrfleet.storage.store import FolderStore
from producer.api import submitter as submissions
from producer.api.app import create_app
from producer.api.auth import check_address
from producer.api.idempotency import remove_expired
from producer.api.routes import documents as document_routes
from producer.api.routes import progress as following
from producer.documents.views import State
from producer.intake.batches import IntakeBatches
from producer.intake.consumer import IntakeConsumer
from producer.intake.inspect import Intake
from tests.support.fakes.numbered import write_book
from tests.support.servers import SeaweedFS, Valkey
from tests.support.shelf import AWAY, Shelf, terms

TOKEN, OTHER, EVENTS = "a" * 32, "b" * 32, "e" * 32
LOCAL = "http://127.0.0.1"


class Front:
    """An API over a shelf of documents."""

    def __init__(
        self, folder: Path, *, redis: str = AWAY, s3: S3Settings | None = None, store: Any = None, **api: Any
    ) -> None:
        self.shelf = Shelf(folder, redis)
        settings = self.shelf.settings.model_copy(update={"api": ApiSettings(**api), "s3": s3 or S3Settings()})
        self.settings, self.store = settings, store or self.shelf.store
        self.stopping = threading.Event()
        self.app = create_app(
            settings,
            self.store,
            self.shelf.ledger,
            self.shelf.registry,
            IntakeBatches(self.store),
            profile=RAPIDOCR,
            stopping=self.stopping,
        )
        self._stack = ExitStack()
        self._stack.callback(self.shelf.registry.close)
        client = TestClient(self.app, base_url=LOCAL, follow_redirects=False, raise_server_exceptions=False)
        self.client = self._stack.enter_context(client)

    def close(self) -> None:
        self._stack.close()

    def take_in(self) -> None:
        """The job of an intake consumer."""
        intake = Intake(self.settings, self.shelf.store, Sources(self.settings, self.shelf.store))
        for key in list(self.shelf.store.list("arrivals/")):
            IntakeConsumer(self.shelf.store, self.shelf.ledger, intake).process(key)
        intake.close()

    def send(self, data: bytes, *, media: str = "application/pdf", key: str | None = None, **options: Any) -> Any:
        headers = {"Content-Type": media} | ({"Idempotency-Key": key} if key else {})
        return self.client.post("/v1/documents", content=data, headers=headers, params=options)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    made = Front(tmp_path)
    yield made
    made.close()


@pytest.fixture
def served(tmp_path: Path, valkey: Valkey) -> Iterator[Front]:
    """With a Redis, where something is to be ended."""
    made = Front(tmp_path, redis=valkey.url)
    yield made
    made.close()


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The body of an answer that must be a problem."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body.keys() >= {"type", "title", "detail", "instance"}
    return body


def pdf(pages: int = 1) -> bytes:
    with pymupdf.open() as document:
        for _ in range(pages):
            document.new_page()
        return document.tobytes()  # type: ignore[no-any-return]


# ---- uploads


def test_a_file_that_is_sent_is_a_document_at_once(front: Front) -> None:
    # When a PDF is sent as the body
    answer = front.send(pdf(3), name="letter.pdf", collection="letters", pages="2-", queue="bulk")
    # Then it is registered, waits, and its bytes are kept
    assert answer.status_code == 201
    view = answer.json()
    assert answer.headers["location"] == f"/v1/documents/{view['id']}"
    assert (view["state"], view["total"], view["names"][0]["name"]) == ("waiting", 2, "letter.pdf")
    assert front.client.get(answer.headers["location"]).json() == view
    (waiting,) = front.store.list(keys.waiting_in(Priority.BULK, "letters"))
    assert keys.document_in(waiting) == view["id"]
    upload, reference = front.store.list(keys.UPLOADS)
    assert front.store.get(upload).startswith(b"%PDF-")
    assert reference == keys.reference(upload, view["id"])
    listed = front.client.get("/v1/documents", params={"collection": "letters"}).json()
    assert [item["id"] for item in listed["items"]] == [view["id"]]


def test_a_form_is_a_file_and_fields(front: Front, tmp_path: Path) -> None:
    image = write_book(tmp_path / "book.tif", [1, 2]).read_bytes()
    form = {"collection": "books", "formats": ["md", "json"], "profile": "rapidocr"}

    answer = front.client.post("/v1/documents", files={"file": ("C:\\scans\\Brief an Köln.tif", image)}, data=form)

    view = answer.json()
    assert (answer.status_code, view["total"]) == (201, 2)
    assert view["names"] == [view["names"][0] | {"name": "Brief an Köln.tif", "collection": "books"}]
    (key,) = front.store.list(keys.submissions("books"))
    assert Submission.from_bytes(front.store.get(key)).terms.formats == ("json", "md")


def test_the_same_bytes_are_the_same_document(front: Front) -> None:
    data = pdf()

    ids = {front.send(data, collection=name).json()["id"] for name in ("a", "b", "a")}

    assert len(ids) == 1


def test_a_file_beyond_the_limit_is_refused_while_it_is_sent(tmp_path: Path) -> None:
    front = Front(tmp_path, upload_bytes=1000)
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 500
            yield b"%PDF-" + bytes(495)

    kind = {"Content-Type": "application/pdf"}
    assert "1000 bytes" in problem(front.client.post("/v1/documents", content=endless(), headers=kind), 413)["detail"]
    problem(front.client.post("/v1/documents", content=bytes(1001), headers=kind), 413)
    problem(front.client.post("/v1/documents", files={"file": ("a.pdf", bytes(1001))}), 413)
    problem(front.client.post("/v1/documents", files={"file": ("a.pdf", bytes(3 << 20))}), 413)
    assert list(front.store.list(keys.UPLOADS)) == []
    front.close()


def test_more_pages_than_the_limit_are_refused_unless_only_some_are_asked_for(tmp_path: Path) -> None:
    front = Front(tmp_path, upload_pages=2)

    refused = problem(front.send(pdf(3)), 413)
    taken = front.send(pdf(3), pages="2-3")

    assert (refused["reason"], taken.status_code) == ("too_large", 201)
    front.close()


def test_a_file_that_can_not_be_read_is_refused_with_the_reason(front: Front) -> None:
    with pymupdf.open() as document:
        document.new_page()
        locked = document.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="secret")  # type: ignore[attr-defined]

    assert problem(front.send(b"hello, world"), 415)["reason"] == "unsupported"
    assert problem(front.send(b""), 422)["reason"] == "empty_file"
    assert problem(front.send(locked), 422)["reason"] == "needs_password"
    assert problem(front.send(b"%PDF-1.7\nnothing more"), 422)["reason"] in {"unreadable", "no_pages"}
    assert problem(front.send(pdf(), pages="7-"), 422)["reason"] == "no_such_pages"
    assert list(front.store.list("documents/")) == []


@pytest.mark.parametrize(
    "options",
    [
        {"pages": "x"},
        {"pages": "9-3"},
        {"queue": "slow"},
        {"collection": "../x"},
        {"collection": ""},
        {"profile": "/etc/passwd"},
        {"profile": "/etc/x.json"},
        {"profile": '{"name": "mine"}'},
        {"formats": "wordperfect"},
        {"callback": "ftp://example.com"},
        {"callback": "https://127.0.0.1/hook"},
        {"callback": "https://10.0.0.1/hook"},
        {"name": "a\nb"},
        {"results": "s3://elsewhere/"},
        {"wait": "-1"},
    ],
)
def test_options_that_make_no_sense_are_refused(front: Front, options: dict[str, str]) -> None:
    problem(front.send(pdf(), **options), 400)
    assert list(front.store.list(keys.UPLOADS)) == []


def test_a_body_without_a_file_or_a_source_is_refused(front: Front) -> None:
    post = front.client.post
    problem(post("/v1/documents", content=b"x", headers={"Content-Type": "text/plain"}), 415)
    problem(post("/v1/documents"), 415)
    problem(post("/v1/documents", data={"file": "text"}, files={"other": ("a", b"b")}), 400)
    problem(post("/v1/documents", content=b"x", headers={"Content-Type": "multipart/form-data"}), 400)
    problem(post("/v1/documents", content=b"[]", headers={"Content-Type": "application/json"}), 400)
    problem(post("/v1/documents", content=b"{", headers={"Content-Type": "application/json"}), 400)
    problem(post("/v1/documents", json={"source": "s3://a/b", "unknown": 1}), 400)
    problem(post("/v1/documents", content=bytes(70_000), headers={"Content-Type": "application/json"}), 413)


def test_uploads_at_the_same_time_are_bounded(front: Front) -> None:
    slots = front.app.state.context.uploads
    with ExitStack() as stack:
        for _ in range(front.settings.api.uploads_at_once):
            stack.enter_context(slots.taken())
        answer = front.send(pdf())
        problem(answer, 429)
        assert answer.headers["retry-after"] == "5"
    assert front.send(pdf()).status_code == 201


def test_a_backlog_of_arrivals_makes_senders_wait(tmp_path: Path) -> None:
    front = Front(tmp_path, arrivals_limit=2)
    for collection in ("a", "b"):
        front.shelf.arrive("x.pdf", collection=collection)

    answer = front.send(pdf())

    problem(answer, 429)
    assert int(answer.headers["retry-after"]) > 0
    front.close()


def test_a_client_leaves_room_for_the_sources_of_others(tmp_path: Path) -> None:
    # Given a client whose sources fill three quarters of the room
    front = Front(tmp_path, arrivals_limit=4, tokens=SecretStr(f"{TOKEN},{OTHER}"))
    batches, client = IntakeBatches(front.store), hashlib.sha256(TOKEN.encode()).hexdigest()
    for number in range(3):
        reference = SourceReference(name="a.pdf", uri=f"s3://b/{number}.pdf", size=1)
        batches.add_followed(terms(f"c{number}"), reference, client=client)

    def send(token: str) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/pdf"}
        return front.client.post("/v1/documents", content=pdf(), headers=headers)

    # When it sends more, then it waits; and others do not
    refused = send(TOKEN)
    assert "Too many of your submissions wait" in problem(refused, 429)["detail"]
    assert int(refused.headers["retry-after"]) > 0
    assert send(OTHER).status_code == 201
    front.close()


# ---- idempotency


def test_a_repeated_idempotency_key_returns_the_first_response(served: Front) -> None:
    front = served
    data = pdf()
    first = front.send(data, key="k1")
    # Given a document that has gone on meanwhile
    front.shelf.registry.cancel(first.json()["id"])

    again = front.send(data, key="k1")
    other = front.send(pdf(2), key="k1")
    options = front.send(data, key="k1", collection="other")
    fresh = front.send(data, key="k2")

    assert (again.status_code, again.content, again.headers["location"]) == (
        201,
        first.content,
        first.headers["location"],
    )
    assert "Idempotency-Key" in problem(other, 422)["detail"]
    problem(options, 422)
    assert fresh.json()["state"] == "cancelled"


def test_keys_are_their_users_own_and_expire(tmp_path: Path) -> None:
    front = Front(tmp_path, tokens=SecretStr(f"{TOKEN},{OTHER}"))
    one, two = pdf(1), pdf(2)
    for token, data in ((TOKEN, one), (OTHER, two)):
        front.client.headers["Authorization"] = f"Bearer {token}"
        assert front.send(data, key="k").status_code == 201

    now = datetime.now(UTC)
    assert remove_expired(front.store, now + timedelta(hours=23)) == 0
    assert remove_expired(front.store, now + timedelta(days=2)) == 2
    assert front.send(one, key="k").status_code == 201
    front.close()


# ---- sources in S3


@pytest.fixture
def bucketed(tmp_path: Path, seaweed: SeaweedFS) -> Iterator[tuple[Front, str]]:
    bucket = seaweed.bucket()
    seaweed.client.put_object(Bucket=bucket, Key="in/a b.pdf", Body=pdf(2))
    seaweed.client.put_object(Bucket=bucket, Key="secret/a.pdf", Body=pdf())
    front = Front(tmp_path, s3=seaweed.settings(), sources=f"s3://{bucket}/in/", results=f"s3://{bucket}/out/")
    yield front, bucket
    front.close()


def test_a_source_is_stored_for_intake_and_followed_until_it_is_a_document(bucketed: tuple[Front, str]) -> None:
    front, bucket = bucketed
    # When an object is named that may be read
    source = {"source": f"s3://{bucket}/in/a b.pdf", "collection": "c"}
    answer = front.client.post("/v1/documents", json=source, params={"wait": 0}, headers={"Idempotency-Key": "k"})
    # Then it is noted, as it is now
    assert (answer.status_code, answer.json()["state"]) == (202, "arriving")
    place = answer.headers["location"]
    assert front.client.get(place).json() == answer.json()
    (key,) = front.store.list("arrivals/")
    (wish,) = IntakeBatch.from_bytes(front.store.get(key)).wishes
    assert (wish.name, wish.uri, wish.size) == ("in/a b.pdf", f"s3://{bucket}/in/a%20b.pdf", len(pdf(2)))
    # And a repeated request gets the same response, and no record is written twice
    again = front.client.post("/v1/documents", json=source, params={"wait": 0}, headers={"Idempotency-Key": "k"})
    assert (again.content, len(list(front.store.list("arrivals/")))) == (answer.content, 1)
    # And when it was taken in, it leads to the document
    front.take_in()
    moved = front.client.get(place)
    assert moved.status_code == 303
    view = front.client.get(moved.headers["location"]).json()
    assert (view["total"], view["names"][0]["name"]) == (2, "in/a b.pdf")


def test_whoever_waits_gets_the_document(bucketed: tuple[Front, str], monkeypatch: pytest.MonkeyPatch) -> None:
    front, bucket = bucketed
    monkeypatch.setattr(submissions.Submitter, "followed", _followed_after(front, submissions.Submitter.followed))

    answer = front.client.post("/v1/documents", json={"source": f"s3://{bucket}/in/a b.pdf"})

    assert (answer.status_code, answer.json()["total"]) == (201, 2)


def _followed_after(front: Front, followed: Any) -> Any:
    def after(self: Any, name: str, **options: Any) -> Any:
        front.take_in()
        return followed(self, name, **options)

    return after


def test_every_source_leads_to_its_document_or_its_reason(bucketed: tuple[Front, str], seaweed: SeaweedFS) -> None:
    front, bucket = bucketed
    seaweed.client.put_object(Bucket=bucket, Key="in/torn.pdf", Body=b"%PDF-1.7 torn")
    torn = {"source": f"s3://{bucket}/in/torn.pdf"}
    places = []
    for _ in range(2):
        places.append(front.client.post("/v1/documents", json=torn, params={"wait": 0}).headers["location"])
        front.take_in()

    # Then both refer to the same document, which has the reason
    one, other = [front.client.get(place).headers["location"] for place in places]
    assert one == other
    assert front.client.get(one).json()["problem"]["reason"] in {"unreadable", "no_pages"}


def test_an_own_output_becomes_no_document(bucketed: tuple[Front, str], seaweed: SeaweedFS) -> None:
    front, bucket = bucketed
    asked = {"source": f"s3://{bucket}/in/a b.pdf"}
    place = front.client.post("/v1/documents", json=asked, params={"wait": 0}).headers["location"]
    seaweed.client.put_object(Bucket=bucket, Key="in/a b.pdf", Body=pdf(), Metadata={OWN_OUTPUT: "1"})
    front.take_in()
    assert "a result of ours" in problem(front.client.get(place), 410)["detail"]


def test_sources_that_are_not_allowed_missing_or_own_outputs_are_refused(
    bucketed: tuple[Front, str], seaweed: SeaweedFS
) -> None:
    front, bucket = bucketed
    seaweed.client.put_object(Bucket=bucket, Key="in/ours.pdf", Body=pdf(), Metadata={OWN_OUTPUT: "1"})

    def ask(source: str) -> Any:
        return front.client.post("/v1/documents", json={"source": source}, params={"wait": 0})

    problem(ask(f"s3://{bucket}/secret/a.pdf"), 403)
    problem(ask(f"s3://{bucket}/inner.pdf"), 403)
    problem(ask("s3://elsewhere/in/a.pdf"), 403)
    assert problem(ask(f"s3://{bucket}/in/missing.pdf"), 404)["reason"] == "source_missing"
    for malformed in (f"s3://{bucket}/in/", f"s3://{bucket}", "file:///etc/passwd", "store:uploads/x", "http://x/y"):
        problem(ask(malformed), 400)
    problem(ask(f"s3://{bucket}/in/ours.pdf"), 400)
    problem(front.client.get("/v1/submissions/20261122T000000.000000Z-" + "0" * 32), 404)
    problem(front.client.get("/v1/submissions/x"), 400)
    assert list(front.store.list("arrivals/")) == []


# ---- events


def test_a_source_beyond_the_limit_of_an_upload_is_refused(tmp_path: Path, seaweed: SeaweedFS) -> None:
    bucket = seaweed.bucket()
    seaweed.client.put_object(Bucket=bucket, Key="in/a.pdf", Body=pdf())
    front = Front(tmp_path, s3=seaweed.settings(), sources=f"s3://{bucket}/in/", upload_bytes=len(pdf()) - 1)
    answer = front.client.post("/v1/documents", json={"source": f"s3://{bucket}/in/a.pdf"}, params={"wait": 0})
    assert problem(answer, 413)["reason"] == "too_large"
    assert list(front.store.list("arrivals/")) == []
    front.close()


def notice(*objects: tuple[str, str]) -> dict[str, Any]:
    return {
        "Records": [
            {"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}
            for bucket, key in objects
        ]
    }


def test_events_in_allowed_prefixes_become_intake_batches(bucketed: tuple[Front, str], seaweed: SeaweedFS) -> None:
    front, bucket = bucketed
    seaweed.client.put_object(Bucket=bucket, Key="out/a.pdf", Body=pdf())

    told = notice((bucket, "in/a+b.pdf"), (bucket, "secret/a.pdf"), (bucket, "out/a.pdf"), (bucket, "in/gone.pdf"))
    answer = front.client.post("/v1/events/s3", json=told)

    assert (answer.status_code, answer.json()) == (200, {"registered": 1, "ignored": 3})
    (key,) = front.store.list("arrivals/")
    arrival = IntakeBatch.from_bytes(front.store.get(key))
    assert [wish.uri for wish in arrival.wishes] == [f"s3://{bucket}/in/a%20b.pdf"]
    assert (arrival.terms.queue, arrival.terms.collection) == (Priority.BULK, "inbox")
    assert arrival.terms.results == f"s3://{bucket}/out/"


def test_a_body_that_is_no_event_is_refused(front: Front) -> None:
    problem(front.client.post("/v1/events/s3", content=b"\xff"), 400)
    problem(front.client.post("/v1/events/s3", json={"a": 1}), 400)
    problem(front.client.post("/v1/events/s3", content=bytes(2 << 20)), 413)
    assert front.client.post("/v1/events/s3", json={"Event": "s3:TestEvent"}).status_code == 200


def test_events_that_cannot_be_stored_get_503(tmp_path: Path) -> None:
    s3 = S3Settings(endpoint_url="http://127.0.0.1:1", region="us-east-1", attempts=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "x")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "y")
        front = Front(tmp_path, s3=s3, sources="s3://inbox/")
        answer = front.client.post("/v1/events/s3", json=notice(("inbox", "a.pdf")))
    problem(answer, 503)
    assert "retry-after" in answer.headers
    front.close()


def test_results_among_the_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="OCRFLEET_API_RESULTS"):
        Front(tmp_path, sources="s3://archive/in/", results="s3://archive/in/out/")


# ---- documents


def test_a_document_is_shown_with_its_pages(front: Front) -> None:
    document = front.shelf.ended("box/letter.pdf", failed={2: Reason.TRUNCATED})
    get = front.client.get

    view = get(f"/v1/documents/{document}").json()
    pages = get(f"/v1/documents/{document}/pages", params={"limit": 2}).json()
    rest = get(f"/v1/documents/{document}/pages", params={"after": pages["next"]}).json()

    assert (view["state"], view["reasons"]) == ("partial", {"truncated": 1})
    assert [(page["page"], page["state"]) for page in pages["items"] + rest["items"]] == [
        (1, "done"),
        (2, "failed"),
        (3, "done"),
    ]
    assert get(f"/v1/documents/{document}/pages/1").json()["text"] == "text of 1"
    assert get(f"/v1/documents/{document}/pages/2").json()["reason"] == "truncated"
    problem(get(f"/v1/documents/{document}/pages/9"), 404)
    problem(get(f"/v1/documents/{document}/pages/0"), 400)
    problem(get("/v1/documents/" + "f" * 32), 404)
    problem(get("/v1/documents/x"), 404)


def test_documents_are_listed_by_indexed_criteria(front: Front) -> None:
    documents = [front.shelf.ended() for _ in range(3)]
    waiting = front.shelf.waiting()

    def ask(**asked: object) -> Any:
        return front.client.get("/v1/documents", params=asked)  # type: ignore[arg-type]

    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        portion = ask(status="completed", limit=1, **cursor).json()
        found += [item["id"] for item in portion["items"]]
        if portion["next"] is None:
            break
        cursor = {"cursor": portion["next"]}
    assert found == documents
    assert [item["id"] for item in ask(collection="c", status="waiting").json()["items"]] == [waiting]
    refused: list[dict[str, object]] = [
        {},
        {"day": "yesterday"},
        {"status": "active", "day": "20261122"},
        {"status": "arriving"},
        {"collection": "c", "cursor": "documents/"},
        {"collection": "c", "cursor": "\x00"},
        {"collection": "c", "limit": 0},
        {"collections": "c"},
    ]
    for asked in refused:
        problem(ask(**asked), 400)
    # What is offered instead is then accepted
    (fault,) = problem(ask(status="lost"), 400)["errors"]
    offered = re.findall(r"'(\w+)'", fault["what"])
    assert len(offered) == 6, fault
    for status in offered:
        assert ask(status=status).status_code == 200


def test_a_result_is_saved_and_never_shown(front: Front) -> None:
    document = front.shelf.ended("box/<b>Köln.pdf")
    place = f"/v1/documents/{document}/result"

    answer = front.client.get(place)

    assert (answer.status_code, answer.text) == (200, "text")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%3Cb%3EK%C3%B6ln.pdf.md"
    assert answer.headers["content-length"] == "4"
    etag = answer.headers["etag"]
    assert front.client.get(place, headers={"If-None-Match": etag}).status_code == 304
    problem(front.client.get(place, params={"format": "wordperfect"}), 400)
    assert "waiting" in problem(front.client.get(f"/v1/documents/{front.shelf.waiting()}/result"), 409)["detail"]


def test_a_format_that_is_not_there_yet_is_made_when_it_is_asked_for(front: Front) -> None:
    # Given a document that was written as Markdown
    document = front.shelf.ended("box/a.pdf")
    place = f"/v1/documents/{document}/result"

    # When a client requests its text without waiting
    early = front.client.get(place, params={"format": "txt", "wait": 0})

    # Then it is being made, and there soon
    assert (early.status_code, early.json()) == (202, {"state": "converting"})
    assert int(early.headers["retry-after"]) > 0
    answer = front.client.get(place, params={"format": "txt", "wait": 60})
    assert (answer.status_code, answer.text) == (200, "text of 1\n\ftext of 2\n\ftext of 3\n")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a.pdf.txt"

    # And it is not converted again, also after its pages are purged; other formats can't be converted then
    for key in list(front.store.list(keys.pages(document))):
        front.store.delete(key)
    assert front.client.get(place, params={"format": "txt"}).text == answer.text
    assert "purge" in problem(front.client.get(place, params={"format": "jsonl", "wait": 60}), 404)["detail"]


def test_a_result_in_s3_is_a_redirect(tmp_path: Path) -> None:
    class Signing(FolderStore):
        def presigned(self, key: str, *, seconds: int, filename: str, content_type: str) -> str:
            return f"https://bucket/{key}?{seconds}&{filename}&{content_type.partition(';')[0]}"

    front = Front(tmp_path, store=Signing(tmp_path / "store"))
    document = front.shelf.ended()

    answer = front.client.get(f"/v1/documents/{document}/result")

    assert answer.status_code == 307
    assert answer.headers["location"].endswith("?300&a.pdf.md&text/markdown")
    assert answer.headers["cache-control"] == "no-store"
    front.close()


def test_documents_are_retried_cancelled_and_deleted(served: Front) -> None:
    front = served
    partial = front.shelf.ended(failed={2: Reason.EMPTY})
    waiting = front.shelf.waiting()
    post = front.client.post

    retried = post(f"/v1/documents/{partial}/retry")
    cancelled = post(f"/v1/documents/{waiting}/cancel")

    assert (retried.status_code, retried.json()) == (202, {"generation": 2, "opened": True})
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    problem(post(f"/v1/documents/{partial}/retry"), 409)
    problem(post(f"/v1/documents/{front.shelf.ended('done.pdf')}/retry"), 409)
    problem(post(f"/v1/documents/{waiting}/cancel"), 409)
    assert front.client.delete(f"/v1/documents/{partial}").status_code == 204
    for ask in (front.client.get, front.client.delete):
        problem(ask(f"/v1/documents/{partial}"), 404)


# ---- progress


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for part in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in part.splitlines() if not line.startswith(":"))
        found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_progress_events_are_sent_until_the_end(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_POLL_SECONDS", 0.02)
    document = front.shelf.active()
    store = front.shelf.store
    output = Output(key=keys.output(document, 1, "a" * 64, "md"), sha256="a" * 64, size=4)
    status = Status(
        document=document, generation=1, status=DocumentStatus.COMPLETED, total=3, done=3, outputs={"md": output}
    )
    seen = 0

    def view(document: str, **_options: object) -> Any:
        # What happens between two looks
        nonlocal seen
        seen += 1
        if seen == 3:
            store.put(keys.page_done(document, 1), b"{}")
        if seen == 5:
            store.put(keys.status(document, 1), status.to_bytes())
        if seen == 4:
            raise TransientError("away")
        return front.shelf.registry.__class__.view(front.shelf.registry, document)

    monkeypatch.setattr(front.shelf.registry, "view", view)

    answer = front.client.get(f"/v1/documents/{document}/events")

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [(name, data["state"], data["done"]) for name, data in events(answer.text)] == [
        ("progress", "active", 0),
        ("progress", "active", 1),
        ("ended", "completed", 3),
    ]


def test_streams_end_with_the_document_with_the_server_and_are_bounded(
    tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_POLL_SECONDS", 0.02)
    front = Front(tmp_path, redis=valkey.url, streams=1)
    document, ended = front.shelf.active(), front.shelf.ended()
    place = f"/v1/documents/{document}/events"
    problem(front.client.get("/v1/documents/x/events"), 404)
    # Each gives its place back
    for _ in range(2):
        assert events(front.client.get(f"/v1/documents/{ended}/events").text)[0][0] == "ended"
    with front.app.state.context.streams.taken():
        problem(front.client.get(place), 429)

    deleting = threading.Timer(0.2, lambda: front.shelf.registry.delete(document))
    deleting.start()
    # It is cancelled first, and then removed: either may be observed
    (name, data) = events(front.client.get(place).text)[-1]
    assert name == "ended"
    assert data["state"] in {State.CANCELLED, State.DELETED}
    deleting.join()

    front.stopping.set()
    other = front.shelf.active()
    assert [name for name, _ in events(front.client.get(f"/v1/documents/{other}/events").text)] == ["progress"]
    front.close()


def test_requests_that_wait_are_bounded_and_hold_their_slot_until_the_response_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server with one place for requests that wait
    front = Front(tmp_path, connections=2, tokens=SecretStr(TOKEN))
    waits, pieces = front.app.state.context.waits, document_routes._pieces
    place = f"/v1/documents/{front.shelf.ended()}/result"
    client, by_token = front.client, {"Authorization": f"Bearer {TOKEN}"}
    held = []

    def sent(stream: Any) -> Iterator[bytes]:
        held.append(waits._free == 0)
        yield from pieces(stream)

    monkeypatch.setattr(document_routes, "_pieces", sent)
    # When there is none, then such a request is refused, after its token was checked
    with waits.taken():
        for answer in (
            client.get(place, headers=by_token),
            client.post("/v1/documents", json={"source": "s3://bucket/k"}, headers=by_token),
        ):
            problem(answer, 429)
            assert int(answer.headers["retry-after"]) > 0
        problem(client.get(place), 401)
        assert client.get(place.removesuffix("/result"), headers=by_token).status_code == 200
    # And each gives its place back when its response is sent
    for _ in range(2):
        assert client.get(place, headers=by_token).text == "text"
        problem(client.post("/v1/documents", json={"source": "s3://bucket/k"}, headers=by_token), 403)
    assert held == [True, True]
    assert waits._free == 1
    front.close()


# ---- who may ask


def test_without_a_token_every_request_is_refused(tmp_path: Path) -> None:
    front = Front(tmp_path, tokens=SecretStr(f"{TOKEN}, {OTHER}"), event_token=SecretStr(EVENTS))
    document = front.shelf.ended()
    paths = [f"/v1/documents/{document}{end}" for end in ("", "/pages", "/pages/1", "/result", "/events")]
    for path in [*paths, "/v1/documents?collection=c", "/v1/submissions/x"]:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": EVENTS},
            {"Authorization": "Basic eDp5"},
        ):
            answer = front.client.get(path, headers=headers)
            problem(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
    problem(front.client.get(paths[0], headers={"Authorization": f"Bearer {EVENTS}"}), 401)
    problem(front.client.delete(paths[0]), 401)
    problem(front.send(pdf()), 401)
    for token in (TOKEN, OTHER):
        assert front.client.get(paths[0], headers={"Authorization": f"Bearer {token}"}).status_code == 200
    front.close()


def test_a_token_is_compared_with_all_in_a_time_that_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given several tokens, and a record of what is compared
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def recorded(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", recorded)
    front = Front(tmp_path, tokens=SecretStr(f"{TOKEN},{OTHER},{'c' * 32}"))
    try:
        # Then each is compared, by its digest, whichever of them is right, or none
        for token in (TOKEN, OTHER, "wrong" * 8):
            compared.clear()
            front.client.get("/v1/documents/" + "0" * 32, headers={"Authorization": f"Bearer {token}"})
            assert len(compared) == 3
            assert {len(digest) for digest in compared} == {32}
    finally:
        front.close()


def test_the_event_token_is_accepted_in_both_forms_for_events_only(tmp_path: Path) -> None:
    front = Front(tmp_path, tokens=SecretStr(TOKEN), event_token=SecretStr(EVENTS))
    for said in (EVENTS, f"Bearer {EVENTS}", f"bearer {EVENTS}", f"Bearer {TOKEN}"):
        answer = front.client.post("/v1/events/s3", json={"Event": "s3:TestEvent"}, headers={"Authorization": said})
        assert answer.status_code == 200
    for said in ("", "Bearer", "Bearer wrong", f"Basic {EVENTS}"):
        problem(front.client.post("/v1/events/s3", json={}, headers={"Authorization": said}), 401)
    front.close()


def test_health_needs_no_token_and_metrics_by_setting(tmp_path: Path) -> None:
    front = Front(tmp_path, tokens=SecretStr(TOKEN), metrics_with_token=True)
    assert front.client.get("/healthz").json() == {"status": "ok"}
    assert "from Redis:" in problem(front.client.get("/readyz"), 503)["detail"]
    problem(front.client.get("/metrics"), 401)
    answer = front.client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert "python_info" in answer.text
    front.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "127.0.0.1.evil.example"},
    ],
)
def test_without_tokens_a_web_page_from_elsewhere_can_not_ask(front: Front, headers: dict[str, str]) -> None:
    problem(front.client.get("/v1/documents?collection=c", headers=headers), 403)
    problem(front.client.post("/v1/events/s3", json={}, headers=headers), 403)
    assert front.client.get("/v1/documents?collection=c", headers={"Origin": LOCAL}).status_code == 200


def test_an_open_address_without_tokens_is_refused() -> None:
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com"):  # noqa: S104 - it is refused
        with pytest.raises(ConfigurationError, match="OCRFLEET_API_TOKENS"):
            check_address(host, ApiSettings())
        check_address(host, ApiSettings(tokens=SecretStr(TOKEN)))
    for host in ("127.0.0.1", "::1", "localhost"):
        check_address(host, ApiSettings())
    for weak in ("short", "with space and long enough", "ä" * 20):
        with pytest.raises(ConfigurationError, match="16 characters") as refused:
            check_address("127.0.0.1", ApiSettings(tokens=SecretStr(weak)))
        assert weak not in str(refused.value)


# ---- errors


def test_an_unknown_path_names_the_documentation(front: Front) -> None:
    assert "/docs" in problem(front.client.get("/nothing"), 404)["detail"]
    answer = front.client.put("/v1/documents")
    problem(answer, 405)
    assert answer.headers["allow"] == "GET, POST"


def test_each_answer_tells_a_browser_to_load_from_this_server_only_and_to_show_it_in_no_frame(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the page of the API with its files, an answer, and errors of each kind
    def broken(_: str, **_options: object) -> None:
        raise KeyError

    monkeypatch.setattr(front.shelf.registry, "view", broken)
    statuses = {
        "/docs": 200,
        "/healthz": 200,
        "/openapi.json": 200,
        "/v1/documents": 400,
        "/docs/x": 404,
        "/nothing": 404,
    }
    statuses[f"/v1/documents/{'0' * 32}"] = 500
    files = re.findall(r'(?:href|src)="(docs/[^"]+)"', front.client.get("/docs").text)
    statuses |= dict.fromkeys((f"/{file}" for file in files), 200)
    assert len(files) == 3
    for path, status in statuses.items():
        answer = front.client.get(path)
        assert answer.status_code == status, path
        assert answer.headers.get_list("content-security-policy") == [
            "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
        ]
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        # And no file of ours names another host, but the namespace of SVG
        if path.startswith("/docs"):
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text), path


def test_an_unreachable_store_is_reported_without_its_details(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: str, **_options: object) -> None:
        raise TransientError("the store at 10.1.2.3 is away")

    monkeypatch.setattr(front.shelf.registry, "view", away)
    answer = front.client.get("/v1/documents/" + "0" * 32)
    assert "10.1.2.3" not in problem(answer, 503)["detail"]
    assert answer.headers["retry-after"] == "5"


def test_an_internal_error_is_reported_without_details(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str, **_options: object) -> None:
        raise KeyError("inner secret")

    monkeypatch.setattr(front.shelf.registry, "view", broken)
    answer = front.client.get("/v1/documents/" + "0" * 32)
    problem(answer, 500)
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_description_declares_every_problem_as_one(front: Front) -> None:
    described = front.client.get("/openapi.json").json()
    text = json.dumps(described)
    assert "HTTPValidationError" not in text
    assert "#/$defs/" not in text
    responses = described["paths"]["/v1/documents"]["post"]["responses"]
    assert set(responses) >= {"201", "202", "400", "401", "403", "404", "413", "415", "422", "429", "503"}
    assert list(responses["413"]["content"]) == ["application/problem+json"]
    result = described["paths"]["/v1/documents/{document}/result"]["get"]["responses"]
    assert list(result["409"]["content"]) == ["application/problem+json"]


def test_uploads_leave_nothing_on_the_disk(front: Front, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert front.send(pdf()).status_code == 201
    front.client.post("/v1/documents", files={"file": ("a.pdf", io.BytesIO(pdf(9) + bytes(2 << 20)))})
    problem(front.send(b"no document"), 415)
    assert list(folder.iterdir()) == []
