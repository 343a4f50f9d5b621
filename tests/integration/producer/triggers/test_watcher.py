"""`watch` on a store without events, and beside events: missed objects are found, and submitted once."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocrfleet.errors import ConfigurationError
from ocrfleet.profiles.profile import Profile
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeBatch, SourceReference, SubmissionOptions
from ocrfleet.settings import Settings
from ocrfleet.storage.store import FolderStore
from producer.cli.watch import watch
from producer.errors import UsageError
from producer.triggers.filters import Filter, Prefix
from producer.triggers.notifications import ObjectEvent
from producer.triggers.watcher import PrefixWatcher, Watcher
from tests.support.servers import ROOT, Moto
from tests.support.waiting import scaled, until

TERMS = SubmissionOptions(profile_digest="0" * 64, queue=Priority.BULK, collection="inbox")


@pytest.fixture
def bucket(moto: Moto) -> str:
    name = f"inbox-{secrets.token_hex(5)}"
    moto.s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def watcher(moto: Moto, store: FolderStore) -> Iterator[Watcher]:
    with Watcher(store, TERMS, Filter(), moto.settings()) as made:
        yield made


def wishes(store: FolderStore) -> list[SourceReference]:
    return [
        wish for key in store.list("arrivals/bulk/inbox/") for wish in IntakeBatch.from_bytes(store.get(key)).wishes
    ]


def put(moto: Moto, bucket: str, *keys: str, data: bytes = b"%PDF") -> None:
    for key in keys:
        moto.s3.put_object(Bucket=bucket, Key=key, Body=data)


def test_each_listing_submits_new_objects_once(moto: Moto, bucket: str, store: FolderStore, watcher: Watcher) -> None:
    place = Prefix(bucket, "in/")
    put(moto, bucket, "in/a.pdf", "in/ä b.PDF", "in/notes.txt", "elsewhere/c.pdf")

    assert watcher.reconcile(place) == 2
    assert watcher.reconcile(place) == 0
    put(moto, bucket, "in/0.tif", "in/z.pdf")
    assert watcher.reconcile(place) == 2
    # Another watcher, or this one after a restart, has the same index.
    with Watcher(store, TERMS, Filter(), moto.settings()) as other:
        assert other.reconcile(place) == 0

    assert sorted(wish.name for wish in wishes(store)) == ["in/0.tif", "in/a.pdf", "in/z.pdf", "in/ä b.PDF"]


def test_an_object_that_was_written_anew_is_registered_again(
    moto: Moto, bucket: str, store: FolderStore, watcher: Watcher
) -> None:
    place = Prefix(bucket, "")
    put(moto, bucket, "a.pdf", data=b"one")
    assert watcher.reconcile(place) == 1

    put(moto, bucket, "a.pdf", data=b"two")

    assert watcher.reconcile(place) == 1
    assert len({wish.etag for wish in wishes(store)}) == 2


def test_an_object_that_was_brought_back_is_registered_again(
    moto: Moto, bucket: str, store: FolderStore, watcher: Watcher
) -> None:
    # Given an object that was overwritten, and then written as it was before
    place = Prefix(bucket, "")
    times: list[datetime] = []
    for data in (b"one", b"two", b"one"):
        until(lambda data=data: _written_later(moto, bucket, data, times))  # type: ignore[misc] # servers tell whole seconds
        assert watcher.reconcile(place) == 1
        assert watcher.reconcile(place) == 0


def _written_later(moto: Moto, bucket: str, data: bytes, times: list[datetime]) -> bool:
    put(moto, bucket, "a.pdf", data=data)
    time = moto.s3.head_object(Bucket=bucket, Key="a.pdf")["LastModified"]
    if time in times:
        return False
    times.append(time)
    return True


def test_the_same_objects_are_noted_apart_for_others_terms(moto: Moto, bucket: str, store: FolderStore) -> None:
    put(moto, bucket, "a.pdf")
    other_terms = TERMS.model_copy(update={"profile_digest": "1" * 64})

    for terms in (TERMS, other_terms):
        with Watcher(store, terms, Filter(), moto.settings()) as watcher:
            assert watcher.reconcile(Prefix(bucket, "")) == 1


def test_a_listing_and_an_event_make_the_same_source_reference(
    moto: Moto, bucket: str, store: FolderStore, watcher: Watcher
) -> None:
    put(moto, bucket, "1890s/ä + b%41.pdf")

    watcher.register([ObjectEvent(bucket, "1890s/ä + b%41.pdf", created=True)], source="sqs")
    watcher.reconcile(Prefix(bucket, ""))

    assert len(wishes(store)) == 2
    assert len(set(wishes(store))) == 1


def test_a_listing_of_recent_changes_skips_older_objects(
    moto: Moto, bucket: str, store: FolderStore, watcher: Watcher
) -> None:
    put(moto, bucket, "a.pdf")

    assert watcher.reconcile(Prefix(bucket, ""), since=datetime.now(UTC) + timedelta(minutes=1)) == 0
    assert watcher.reconcile(Prefix(bucket, ""), since=datetime.now(UTC) - timedelta(minutes=1)) == 1


def test_many_objects_are_registered_a_hundred_at_a_time(
    moto: Moto, bucket: str, store: FolderStore, watcher: Watcher
) -> None:
    put(moto, bucket, *(f"{number:04}.pdf" for number in range(1010)))

    assert watcher.reconcile(Prefix(bucket, "")) == 1010

    assert len(list(store.list("arrivals/bulk/inbox/"))) == 11
    assert len({wish.name for wish in wishes(store)}) == 1010


def test_the_watcher_finds_uploads_and_stops_at_once(
    moto: Moto, bucket: str, store: FolderStore, watcher: Watcher
) -> None:
    follower = PrefixWatcher(watcher, Prefix(bucket, ""), every=0.1, whole_every=3600)
    thread = threading.Thread(target=follower.run)
    thread.start()
    try:
        put(moto, bucket, "a.pdf")
        until(lambda: len(wishes(store)) == 1)
        put(moto, bucket, "b.pdf")
        until(lambda: len(wishes(store)) == 2)
    finally:
        follower.stop()
        thread.join(timeout=scaled(2))
    assert not thread.is_alive()


def test_a_bucket_that_is_not_there_ends_the_watch(moto: Moto, watcher: Watcher) -> None:
    follower = PrefixWatcher(watcher, Prefix("there-is-no-such-bucket", ""), every=1, whole_every=1)

    with pytest.raises(ConfigurationError, match="the bucket doesn't exist"):
        follower.run()


@contextmanager
def command(arguments: dict[str, object], store: Path, moto: Moto) -> Iterator[subprocess.Popen[bytes]]:
    """Run `ocrfleet watch` as a separate process."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"from producer.cli.watch import watch; watch(**{arguments!r})"],
        env={
            **os.environ,
            **moto.environment,
            "OCRFLEET_STORE": str(store),
            "OCRFLEET_S3_ENDPOINT_URL": moto.endpoint,
        },
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def obeys(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a process has a handler for SIGTERM."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_the_command_submits_objects_with_and_without_events(moto: Moto, bucket: str, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    queue = moto.queue()
    event = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": "told.pdf"}},
    }
    arguments = {"sqs": [queue], "reconcile": [f"s3://{bucket}/quiet/"], "results": f"s3://{bucket}-out/texts"}
    put(moto, bucket, "quiet/a.pdf", "told.pdf")

    # Given two watchers with the same task,
    with command(arguments, tmp_path / "store", moto) as one, command(arguments, tmp_path / "store", moto) as two:  # type: ignore[arg-type]
        # when an event for one object arrives, and none for another,
        moto.sqs.send_message(QueueUrl=queue, MessageBody=json.dumps({"Records": [event]}))
        until(lambda: {wish.name for wish in wishes(store)} == {"told.pdf", "quiet/a.pdf"})
        until(lambda: all(map(obeys, (one, two))))
        for process in (one, two):
            process.send_signal(signal.SIGTERM)
        # Before a long poll of the queue ends
        codes = [process.wait(timeout=scaled(15)) for process in (one, two)]

    # then both are registered, under terms whose profile can be found, and SIGTERM is a clean end.
    assert codes == [0, 0]
    for key in store.list("arrivals/bulk/inbox/"):
        terms = IntakeBatch.from_bytes(store.get(key)).terms
        assert terms.results == f"s3://{bucket}-out/texts/"
        assert Profile.from_bytes(store.get(f"profiles/{terms.profile_digest}.json")).digest == terms.profile_digest


def test_the_command_ends_if_its_queue_or_bucket_cannot_be_used(moto: Moto, tmp_path: Path) -> None:
    with command({"poll": ["s3://there-is-no-such-bucket/"]}, tmp_path / "store", moto) as process:
        assert process.wait(timeout=scaled(20)) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "nothing to watch"),
        ({"poll": ["inbox/"]}, "must be s3://"),
        ({"poll": ["s3://inbox/in/"], "results": "s3://inbox/in/out/"}, "--exclude in/out/"),
        ({"reconcile": ["s3://inbox/in/"], "results": "s3://inbox/"}, "choose another bucket or prefix"),
        ({"poll": ["s3://inbox/"], "collection": "../x"}, "--collection"),
        ({"poll": ["s3://inbox/"], "profile": "no-such-profile"}, "no-such-profile"),
    ],
)
def test_meaningless_options_are_refused(arguments: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        watch(**arguments)


def test_a_store_inside_a_watched_prefix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCRFLEET_STORE", "s3://inbox/in/store")
    assert Settings().store == "s3://inbox/in/store"

    with pytest.raises(UsageError, match="the store in s3://inbox/in/store/ would lie in the source prefix"):
        watch(poll=["s3://inbox/in/"])
