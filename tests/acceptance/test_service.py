"""The fleet as a service: a file uploaded to a bucket becomes text in another bucket.

SeaweedFS, Valkey, `dispatch`, `watch` and a worker, each as a separate process.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.desk import NUMBERED, Desk
from tests.support.fakes.numbered import write_book
from tests.support.servers import SeaweedFS, Valkey
from tests.support.service import Service
from tests.support.waiting import rest, scaled, until


class Watched(Service):
    """A fleet that watches its first bucket and delivers to the second."""

    def start(self) -> None:
        self.dispatch = self.begin("dispatch")
        self.begin("worker", *NUMBERED)
        self.begin(
            *("watch", "--poll", f"s3://{self.inbox}/", "--every", "1", "--results", f"s3://{self.texts}/"), *NUMBERED
        )


@pytest.fixture
def service(desk: Desk, valkey: Valkey, seaweed: SeaweedFS) -> Iterator[Watched]:
    made = Watched(desk, valkey, seaweed)
    made.start()
    yield made
    made.stop()


def test_a_file_in_a_bucket_becomes_text_in_another_one(service: Watched, desk: Desk, tmp_path: Path) -> None:
    # Given a file that is uploaded to a bucket
    key = "letters/Brief an Köln+1 %41.tif"
    service.put(key, [1, 2, 3])
    # When some seconds have passed
    pointer = json.loads(until(lambda: service.results().get(f"{key}.status.json"), pause=0.2))
    # Then its text has the key derived from the key of the upload
    results = service.results()
    assert set(results) == {f"{key}.md", f"{key}.json", f"{key}.status.json"}
    assert [f"page number {number}" in results[f"{key}.md"].decode() for number in (1, 2, 3)] == [True] * 3
    assert (pointer["status"], pointer["total"], pointer["done"]) == ("completed", 3, 3)
    # And the commands list the document
    document = pointer["document"]
    assert "1 completed" in service.ask("status", "--collection", "inbox")
    assert json.loads(service.ask("status", document, "--json"))["state"] == "completed"
    service.ask("results", document, "-o", tmp_path / "fetched")
    assert (tmp_path / "fetched" / f"{key}.md").read_bytes() == results[f"{key}.md"]

    # When it is replaced, the name has the new text, and what did not change is not read again
    service.put("other.tif", [7])
    service.put(key, [4])
    until(lambda: b"page number 4" in service.results().get(f"{key}.md", b""), pause=0.2)
    until(lambda: "other.tif.status.json" in service.results(), pause=0.2)
    assert sorted(desk.recognised()) == [1, 2, 3, 4, 7]

    # When a document is deleted, it is not found any more; its delivered results stay
    service.ask("delete", document, "--yes")
    service.ask("status", document, code=2)
    assert f"{key}.md" in service.results()


def test_another_process_takes_over_from_a_killed_leader(service: Watched, desk: Desk) -> None:
    # Given a second dispatcher, that waits
    service.begin("dispatch")
    service.put("a.tif", [1])
    until(lambda: "a.tif.status.json" in service.results(), pause=0.2)
    # When the first one is killed
    service.kill(service.dispatch)
    service.put("b.tif", [2])
    # Then the next uploads are read, once
    until(lambda: "b.tif.status.json" in service.results(), seconds=90, pause=0.2)
    assert desk.recognised() == [1, 2]


@pytest.fixture
def own_seaweed() -> Iterator[SeaweedFS]:
    """A server that a test may kill."""
    server = SeaweedFS()
    yield server
    server.close()


def test_a_store_that_is_killed_amid_two_hundred_documents_costs_none_of_them(
    desk: Desk, valkey: Valkey, own_seaweed: SeaweedFS
) -> None:
    # Given two hundred documents, and a fleet at work on them
    seaweed = own_seaweed
    desk.plan["seconds"] = 0.1
    service = Watched(desk, valkey, seaweed)
    for number in range(200):
        service.put(f"{number:03}.tif", [number])
    service.start()
    until(lambda: len(desk.recognised()) >= 60, seconds=90, pause=0.2)
    # When the store is killed and restarted after a while
    seaweed.kill()
    rest(3)
    seaweed.start()
    # Then every document is completed, once, with its own text
    wanted = {f"{number:03}.tif.status.json" for number in range(200)}
    until(lambda: wanted <= service.names(), seconds=200, otherwise=lambda: sorted(wanted - service.names()), pause=0.2)
    results = service.results()
    assert len(results) == 600
    for number in range(200):
        assert f"page number {number}\n" in results[f"{number:03}.tif.md"].decode()
        assert json.loads(results[f"{number:03}.tif.status.json"])["status"] == "completed"
    # And the engine was given few pages twice: those whose text could not be stored
    assert len(desk.recognised()) <= 210
    service.stop()


def test_results_among_the_sources_are_refused(desk: Desk, valkey: Valkey, seaweed: SeaweedFS) -> None:
    service = Watched(desk, valkey, seaweed)
    ended = desk.run(
        *("watch", "--poll", f"s3://{service.inbox}/", "--results", f"s3://{service.inbox}/texts/"),
        *NUMBERED,
        environment=service.environment,
    )
    assert ended.returncode == 2
    assert "--exclude texts/" in ended.stderr


def test_folders_and_prefixes_are_submitted_once(service: Watched, desk: Desk) -> None:
    # Given files on this machine, which the fleet can't access, and others in a bucket that is not watched
    (desk.scans / "box").mkdir()
    write_book(desk.scans / "box" / "a.tif", [1, 2])
    (desk.scans / "notes.txt").write_text("no document")
    service.inbox = service.seaweed.bucket()
    service.put("deep/b.tif", [3])
    service.put("deep/c.tif", [4])
    # When they are submitted
    told = ("--results", f"s3://{service.texts}/", *NUMBERED, "--json")
    files = json.loads(service.ask("submit", desk.scans, "--collection", "local", *told))
    prefix = json.loads(service.ask("submit", f"s3://{service.inbox}/deep/", "--collection", "remote", *told))
    assert (files["submitted"], files["skipped"]) == (1, 1)
    assert (prefix["submitted"], prefix["known"]) == (2, 0)
    # Then all of them are read
    wanted = {f"{name}.status.json" for name in ("box/a.tif", "deep/b.tif", "deep/c.tif")}
    until(lambda: wanted <= service.results().keys(), pause=0.2)
    assert sorted(desk.recognised()) == [1, 2, 3, 4]
    assert b"page number 2" in service.results()["box/a.tif.md"]
    # When they are submitted again, objects in the bucket are known, and no page is read twice
    service.put("deep/d.tif", [5])
    again = json.loads(service.ask("submit", f"s3://{service.inbox}/deep/", "--collection", "remote", *told))
    assert (again["submitted"], again["known"]) == (1, 2)
    service.ask("submit", desk.scans, "--collection", "local", *told)
    until(lambda: "deep/d.tif.status.json" in service.results(), pause=0.2)
    until(lambda: "1 sources (1 completed)" in service.ask("status", "--collection", "local"), pause=0.2)
    assert sorted(desk.recognised()) == [1, 2, 3, 4, 5]
    # And invalid submissions are rejected
    service.ask("submit", f"s3://{service.inbox}/", "--results", f"s3://{service.inbox}/x/", *NUMBERED, code=2)
    service.ask("submit", "nowhere.pdf", code=2)
    service.ask("submit", desk.scans, "--callback", "https://127.0.0.1/hook", *NUMBERED, code=2)


def test_whoever_submits_may_wait_stop_waiting_and_wait_again(desk: Desk, valkey: Valkey, seaweed: SeaweedFS) -> None:
    # Given a fleet that is blocked at page 3 for a while, and fails page 9
    go_on = desk.folder / "go on"
    desk.plan |= {"wait": [3], "until": str(go_on), "fail": [9]}
    service = Service(desk, valkey, seaweed)
    service.begin("dispatch")
    service.begin("worker", *NUMBERED)
    service.put("deep/a.tif", [1, 2])
    service.put("deep/b.tif", [3])
    submit = "submit", f"s3://{service.inbox}/deep/", "--results", f"s3://{service.texts}/", "--wait", *NUMBERED
    # When `submit --wait` runs
    waiting = desk.start(*submit, environment=service.environment)
    until(lambda: "deep/a.tif.status.json" in service.names() and 3 in desk.recognised(), pause=0.2)
    # Then the command runs until all pages are read, or until it is stopped
    assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=scaled(120))
    assert (waiting.returncode, "the fleet goes on" in said) == (130, True), said
    # And when it runs again, it submits no new document, and ends when all are read and delivered
    go_on.touch()
    told = json.loads(service.ask(*submit, "--json"))
    assert (told["submitted"], told["known"], told["sources"]) == (0, 2, {"completed": 2})
    assert (told["pages"], told["pages_done"], told["pages_failed"]) == (3, 3, 0)
    assert service.names() == {f"deep/{name}.tif.{part}" for name in "ab" for part in ("md", "json", "status.json")}
    # And when a document fails, the command prints the reason and exits with 1
    service.put("deep/c.tif", [9])
    said = service.ask(*submit, code=1)
    assert "failed deep/c.tif (0 of 1 pages): engine_failed 1" in said
    assert "3 sources (2 completed, 1 failed); 3 of 4 pages done, 1 failed" in said
    service.stop()
