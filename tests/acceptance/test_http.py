"""The HTTP API from outside: upload a file or name a source, follow the document, download its text.

SeaweedFS, Valkey, `serve` and a worker, each as a separate process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.desk import Desk
from tests.support.fakes.webhook_receiver import IntakeScheduler
from tests.support.served import Served, events
from tests.support.servers import SeaweedFS, Valkey
from tests.support.waiting import scaled, until


@pytest.fixture
def served(desk: Desk, valkey: Valkey, seaweed: SeaweedFS) -> Iterator[Served]:
    with IntakeScheduler() as receiver:
        made = Served(desk, valkey, seaweed, receiver)
        made.start()
        yield made
        made.stop()


def test_a_file_is_uploaded_followed_and_its_text_downloaded(served: Served) -> None:
    client = served.client
    # Given a file, sent with a key and a callback; its last page takes a while
    data = served.book(1, 2, 3)
    sent: dict[str, Any] = {
        "files": {"file": ("Brief an Köln.tif", data, "image/tiff")},
        "data": {"collection": "letters", "callback": served.receiver.url},
        "headers": {"Idempotency-Key": "k1"},
    }
    answer = client.post("/v1/documents", **sent)
    assert (answer.status_code, answer.json()["total"]) == (201, 3), answer.text
    place, document = answer.headers["location"], answer.json()["id"]
    # When the request is repeated with its key, the response is the same; another request may not use the key
    again = client.post("/v1/documents", **sent)
    assert (again.status_code, again.json(), again.headers["location"]) == (201, answer.json(), place)
    other = client.post("/v1/documents", **(sent | {"data": {"collection": "others"}}))
    assert (other.status_code, other.headers["content-type"]) == (422, "application/problem+json")
    # And a request without a token is rejected
    assert httpx.get(f"{client.base_url}{place}", timeout=scaled(30)).status_code == 401

    # When it is followed
    with client.stream("GET", f"{place}/events") as stream:
        progress = events(stream)
        kind, numbers = next(progress)
        while numbers["done"] < 2:
            kind, numbers = next(progress)
        # Then its progress is visible, and its results are not available yet
        assert (kind, numbers["state"], numbers["total"]) == ("progress", "active", 3)
        assert client.get(place).json()["done"] == 2
        assert [item["state"] for item in client.get(f"{place}/pages").json()["items"]] == ["done", "done", "open"]
        assert client.get(f"{place}/result").status_code == 409
        assert client.post(f"{place}/retry").status_code == 409
        # And after its last page, its end is visible
        served.go_on()
        *_, (kind, numbers) = progress
        assert (kind, numbers["state"], numbers["done"]) == ("ended", "completed", 3)

    # Then its text is fetched from the store, without a token, by the name that it was sent under
    view = client.get(place).json()
    for extension, kind in (("md", "text/markdown; charset=utf-8"), ("json", "application/json")):
        result = served.fetched(place, extension)
        assert hashlib.sha256(result.content).hexdigest() == view["outputs"][extension]["sha256"]
        assert result.headers["content-type"] == kind
        assert f"Brief%20an%20K%C3%B6ln.tif.{extension}" in result.headers["content-disposition"]
        assert [f"page number {number}" in result.text for number in (1, 2, 3)] == [True] * 3
    followed = client.get(f"{place}/result", follow_redirects=True)
    assert followed.content == served.fetched(place, "md").content
    # And page by page
    assert client.get(f"{place}/pages/2").json()["text"] == "page number 2"
    assert client.get(f"{place}/pages/4").status_code == 404
    # And the receiver gets one signed webhook
    message = served.told(document)
    assert (message["type"], message["data"]["status"], message["data"]["done"]) == ("document.ended", "completed", 3)
    assert (message["data"]["name"], message["data"]["collection"]) == ("Brief an Köln.tif", "letters")
    # And it is listed among what has ended
    listing = {"collection": "letters", "status": "completed"}
    (listed,) = until(lambda: client.get("/v1/documents", params=listing).json()["items"])
    assert listed["id"] == document

    # When a retry is requested, there are no failed pages
    assert client.post(f"{place}/retry").status_code == 409
    assert sorted(served.desk.recognised()) == [1, 2, 3]
    # When it is deleted, it is not found any more
    assert client.delete(place).status_code == 204
    for path in (place, f"{place}/pages", f"{place}/result", f"{place}/events"):
        assert client.get(path).status_code == 404
    assert client.delete(place).status_code == 404
    assert client.get("/v1/documents", params={"collection": "letters"}).json()["items"] == []


def test_a_source_that_lies_in_a_bucket_is_read_where_it_lies(served: Served) -> None:
    client = served.client
    served.go_on()
    # Given a source in a bucket with special characters in its key
    key = "letters/Brief an Köln+1 %41.tif"
    served.put(key, [4, 5])
    asked = {"source": f"s3://{served.inbox}/{key}", "callback": served.receiver.url, "collection": "letters"}
    # When it is named, with time to wait
    answer = client.post("/v1/documents?wait=60", json=asked, headers={"Idempotency-Key": "k1"})
    # Then it is a document, the same one for a repeated submission
    assert (answer.status_code, answer.json()["total"]) == (201, 2), answer.text
    place, document = answer.headers["location"], answer.json()["id"]
    again = client.post("/v1/documents", json=asked, headers={"Idempotency-Key": "k1"})
    assert (again.status_code, again.headers["location"]) == (201, place)
    assert served.ended(place)["state"] == "completed"
    assert "page number 5" in served.fetched(place, "md").text
    message = served.told(document)
    assert (message["data"]["source"], message["data"]["name"]) == (asked["source"], key)

    # When another one is named without waiting, it is followed until it is a document
    served.put("letters/b.tif", [6])
    noted = client.post("/v1/documents?wait=0", json=asked | {"source": f"s3://{served.inbox}/letters/b.tif"})
    assert (noted.status_code, noted.json()["state"]) == (202, "arriving")
    becomes = until(lambda: client.get(noted.headers["location"]).headers.get("location"))
    assert served.ended(becomes)["state"] == "completed"
    assert served.told(becomes.rpartition("/")[2])["data"]["source"].endswith("/letters/b.tif")
    assert sorted(served.desk.recognised()) == [4, 5, 6]

    # When a source that is not an image is submitted, its document ends with the reason
    served.seaweed.client.put_object(Bucket=served.inbox, Key="letters/c.pdf", Body=b"no pdf")
    broken = client.post("/v1/documents?wait=60", json=asked | {"source": f"s3://{served.inbox}/letters/c.pdf"})
    assert broken.status_code == 201, broken.text
    view = served.ended(broken.headers["location"])
    assert (view["state"], view["problem"]["reason"]) == ("failed", "unsupported")
    assert served.told(view["id"])["data"]["problem"]["reason"] == "unsupported"

    # And missing or forbidden sources are rejected
    for source, status in (("letters/none.tif", 404), ("others/a.tif", 403), ("letters/", 400)):
        refused = client.post("/v1/documents", json={"source": f"s3://{served.inbox}/{source}"})
        assert (refused.status_code, refused.headers["content-type"]) == (status, "application/problem+json")
