"""A store, a queue and a settings file that commit a45bcc8 left behind: this version finishes the work.

version_a45bcc8/README.md describes how they were made, and the state of each document.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from ocrfleet import keys
from ocrfleet.settings import Settings
from ocrfleet.storage.store import FolderStore
from tests.support.desk import Desk
from tests.support.servers import SeaweedFS, Valkey, free_ports
from tests.support.service import Service
from tests.support.waiting import scaled, until

LEFT = Path(__file__).parent / "version_a45bcc8"
TOKEN = "t" * 32
#: Documents that had ended, by collection and name: status, pages done, pages failed with their reasons.
ENDED = {
    ("done", "done/done.tif"): ("completed", 3, {}),
    ("watched", "letters/done.tif"): ("completed", 2, {}),
    ("sent", "sent.tif"): ("completed", 2, {}),
    ("partial", "partial/partial.tif"): ("partial", 1, {"engine_failed": 1}),
    ("failed", "failed/failed.tif"): ("failed", 0, {"engine_failed": 1}),
    ("failed", "failed/broken.pdf"): ("failed", 0, {}),
    ("quarantined", "quarantined/crashes.tif"): ("partial", 1, {"worker_died": 1}),
    ("paused", "paused/cancelled.tif"): ("cancelled", 0, {}),
}
#: Documents that had not ended, with the numbers on their pages.
UNENDED = {
    ("middle", "middle/middle.tif"): range(100, 120),
    ("routed", "routed/routed.tif"): range(50, 52),
    ("queued", "queued/queued.tif"): range(70, 72),
    ("retried", "retried/retried.tif"): range(40, 42),
    ("waiting", "waiting/waiting.tif"): range(75, 77),
    ("sent", "later.tif"): range(90, 92),
    ("paused", "paused/paused.tif"): range(60, 62),
    ("arrived", "arrived/arrived.tif"): range(80, 82),
    ("submitted", "submitted/submitted.tif"): range(85, 86),
}
#: Pages of these with stored results: they are not read again.
STORED = {*range(100, 106), 107, 50, 40}


class Inherited(Service):
    """A service with the state of the earlier version: store, Redis, buckets."""

    def __init__(self, desk: Desk, valkey: Valkey, seaweed: SeaweedFS) -> None:
        super().__init__(desk, valkey, seaweed)
        self.inbox, self.texts = "frozen-inbox", "frozen-texts"
        self.objects = FolderStore(desk.folder / "store")
        (self.port,) = free_ports(1)
        self.environment |= {"OCRFLEET_STORE": str(desk.folder / "store"), "OCRFLEET_API_TOKENS": TOKEN}
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=scaled(60)
        )
        for key, data in left("store").items():
            path = desk.folder / "store" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for bucket, objects in left("buckets").items():
            seaweed.client.create_bucket(Bucket=bucket)
            for key, data in objects.items():
                seaweed.client.put_object(Bucket=bucket, Key=key, Body=data)
        fill(valkey)

    def start(self) -> None:
        self.begin("serve", "--port", self.port, "--profile", LEFT / "profile_frozen.json")
        self.begin("worker", "--profile", LEFT / "profile_frozen.json")
        self.begin("worker", "--profile", LEFT / "profile_other.json")

    def status(self, collection: str, name: str) -> dict[str, Any] | None:
        """Return the status of the latest generation of a document; None before its end."""
        for key in self.objects.list(keys.submissions(collection)):
            if json.loads(self.objects.get(key))["name"] == name:
                status = keys.status(keys.document_in(key), 2 if collection == "retried" else 1)
                return json.loads(self.objects.get(status)) if self.objects.exists(status) else None
        return None

    def texts_of(self, status: dict[str, Any]) -> str:
        return self.objects.get(status["outputs"]["md"]["key"]).decode()


def left(name: str) -> Any:
    """Return the parsed content of a file of the earlier version, and its bytes."""
    return _bytes(json.loads((LEFT / f"{name}.json").read_text()))


def _bytes(value: Any) -> Any:
    match value:
        case str():
            return value.encode()
        case {"base64": str(text)}:
            return base64.b64decode(text)
        case dict():
            return {key: _bytes(one) for key, one in value.items()}
    return value


def fill(valkey: Valkey) -> None:
    """Restore the keys of Redis with their remaining times to live."""
    for key, entry in json.loads((LEFT / "redis.json").read_text()).items():
        value = _bytes(entry["value"])
        match entry["type"]:
            case "string":
                valkey.client.set(key, value)
            case "hash":
                valkey.client.hset(key, mapping=value)
            case "list":
                valkey.client.rpush(key, *(_bytes(one) for one in value))
            case "set":
                valkey.client.sadd(key, *value)
            case "zset":
                valkey.client.zadd(key, value)
        if entry["ttl_ms"] > 0:
            valkey.client.pexpire(key, entry["ttl_ms"])


@pytest.fixture
def inherited(desk: Desk, valkey: Valkey) -> Iterator[Inherited]:
    seaweed = SeaweedFS()
    try:
        made = Inherited(desk, valkey, seaweed)
        yield made
        made.stop()
        made.client.close()
    finally:
        seaweed.close()


def test_documents_of_the_earlier_version_are_finished(inherited: Inherited, desk: Desk) -> None:
    # Given documents that were completed, refused, cancelled or deleted by the earlier version
    ended = {place: inherited.status(*place) for place in ENDED}
    assert None not in ended.values()
    before = inherited.results()
    # When this version processes the rest, and paused collections are resumed
    inherited.start()
    inherited.ask("resume", "--collection", "paused")
    # Then each document ends with the text of each of its pages
    until(lambda: all(inherited.status(*place) for place in UNENDED), seconds=180, otherwise=lambda: open_(inherited))
    for place, numbers in UNENDED.items():
        status = inherited.status(*place)
        assert status is not None
        assert (status["status"], status["done"], status["failures"]) == ("completed", len(numbers), []), place
        text = inherited.texts_of(status)
        assert [text.count(f"page number {number}\n") for number in numbers] == [1] * len(numbers), place
    # And no page that was stored is read again, every other one is
    pages = {number for numbers in UNENDED.values() for number in numbers}
    assert set(desk.recognised()) == pages - STORED
    # And ended documents are unchanged
    assert {place: inherited.status(*place) for place in ENDED} == ended
    for place, (state, done, reasons) in ENDED.items():
        stored = inherited.status(*place)
        assert stored is not None
        failed = [failure["reason"] for failure in stored["failures"]]
        counted = {reason: failed.count(reason) for reason in failed}
        assert (stored["status"], stored["done"], counted) == (state, done, reasons), place
        assert inherited.client.get(f"/v1/documents/{stored['document']}").json()["state"] == state
    # And results are delivered: earlier ones have the same bytes
    wanted = {f"{name}.{part}" for (_, name) in UNENDED if "/" in name for part in ("md", "json", "status.json")}
    until(lambda: wanted <= inherited.results().keys())
    after = inherited.results()
    assert {name: after[name] for name in before if not name.startswith("retried/")} == {
        name: data for name, data in before.items() if not name.startswith("retried/")
    }
    # And the quarantine is unchanged
    assert "quarantined/crashes.tif" in inherited.ask("quarantine")


def open_(inherited: Inherited) -> list[tuple[str, str]]:
    return [place for place in UNENDED if not inherited.status(*place)]


def test_records_of_the_earlier_version_are_readable(inherited: Inherited, desk: Desk) -> None:
    inherited.start()
    until(lambda: ready(inherited))
    # A repeated upload with an Idempotency-Key gets the stored response
    sent = inherited.objects.get("uploads/d9d8deb26133257e637d8ce64b352aac51899d04a14b172107ed5db562e00754")
    answer = inherited.client.post(
        "/v1/documents",
        files={"file": ("sent.tif", sent)},
        data={"collection": "sent"},
        headers={"Idempotency-Key": "sent.tif"},
    )
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/documents/3ed6fa9b4b5dd531a4aa6cf8b905eba0")
    # A prefix that was submitted before has no new objects
    told = ("--results", "s3://frozen-texts/", "--profile", LEFT / "profile_frozen.json", "--json")
    again = json.loads(inherited.ask("submit", "s3://frozen-inbox/done/", "--collection", "done", *told))
    assert (again["submitted"], again["known"]) == (0, 1)
    # An earlier document can be fetched, a deleted one is not found
    document = "3ed6fa9b4b5dd531a4aa6cf8b905eba0"
    fetched = inherited.client.get(f"/v1/documents/{document}/result", params={"format": "md"}, follow_redirects=True)
    assert [f"page number {number}\n" in fetched.text for number in (5, 6)] == [True, True]
    assert inherited.client.get("/v1/documents/1f7924d8da1e8cbf248cb799a3f6aea9").status_code == 404
    # And a quarantined page can be retried
    crashed = "/v1/documents/8ae021656117388276b437950359ef74"
    assert inherited.client.post(f"{crashed}/retry").is_success
    until(lambda: inherited.client.get(crashed).json()["state"] == "completed")
    assert desk.recognised().count(30) == 1
    assert 31 not in desk.recognised()


def ready(inherited: Inherited) -> bool:
    try:
        return inherited.client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def test_its_settings_file_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OCRFLEET_"):
            monkeypatch.delenv(name)
    for line in (LEFT / "settings.env").read_text().splitlines():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert _plain(settings, json.loads((LEFT / "settings.json").read_text())) == []


def _plain(settings: object, said: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the names of settings whose values differ from those in the earlier version."""
    wrong = []
    for name, value in said.items():
        now = getattr(settings, name)
        if isinstance(value, dict):
            wrong += _plain(now, value, f"{prefix}{name}.")
        else:
            now = now.get_secret_value() if isinstance(now, SecretStr) else now
            if (now if isinstance(now, int | float | None) else str(now)) != value:
                wrong.append(f"{prefix}{name}")
    return wrong
