"""Sources in a real S3 server: read as they were registered, fetched once, and checked for changes."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError, PermanentError, Reason, TransientError
from ocrfleet.records.base import moment
from ocrfleet.records.documents import DocumentStatus, Kind, Source
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import SourceReference, SubmissionOptions
from ocrfleet.s3 import client as s3
from ocrfleet.s3 import location
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import OWN_OUTPUT, OwnOutputError, Sources, uri_of_upload
from ocrfleet.storage.s3_store import S3Store
from ocrfleet.storage.store import FolderStore
from producer.intake.inspect import Intake
from producer.intake.register import Registration
from tests.support.fakes.numbered import write_book
from tests.support.servers import SeaweedFS, Valkey
from tests.support.stage import Stage

KEY = "1890s/Köln & Umgebung/100%25 + a.tif"


def image(grey: int = 255) -> bytes:
    data = io.BytesIO()
    Image.new("L", (8, 8), grey).save(data, "TIFF")
    return data.getvalue()


class Desk:
    """A bucket with sources, with their intake and their reader."""

    def __init__(self, seaweed: SeaweedFS, folder: Path) -> None:
        self.seaweed = seaweed
        self.client = seaweed.client
        self.bucket = seaweed.bucket()
        self.settings = Settings(
            store=str(folder / "store"), cache=folder / "cache", s3=seaweed.settings(), render_memory_mb=256
        )
        self.store = FolderStore(folder / "store")
        self.sources = Sources(self.settings, self.store)
        self.intake = Intake(self.settings, self.store, self.sources)

    def put(self, data: bytes, key: str = KEY, **more: Any) -> SourceReference:
        """Put an object as an independent client; return the source reference of its event."""
        answer = self.client.put_object(Bucket=self.bucket, Key=key, Body=data, **more)
        return SourceReference(
            name=key,
            uri=location.uri(self.bucket, key),
            size=len(data),
            etag=answer["ETag"].strip('"'),
            version=answer.get("VersionId"),
        )

    def delete(self, key: str = KEY) -> dict[str, Any]:
        return dict(self.client.delete_object(Bucket=self.bucket, Key=key))

    def keep_versions(self) -> None:
        self.client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})

    def registered(self, data: bytes, wish: SourceReference | None = None) -> Source:
        """Put an object; return the source that it would be registered as."""
        wish = wish or self.put(data)
        return Source(
            uri=wish.uri,
            size=len(data),
            mtime_ns=0,
            etag=wish.etag,
            version=wish.version,
            sha256=hashlib.sha256(data).hexdigest(),
            kind=Kind.TIFF,
            pages=1,
        )

    def read(self, source: Source, sources: Sources | None = None) -> bytes:
        with (sources or self.sources).opened(source) as fd:
            return os.pread(fd, source.size + 1, 0)

    @contextmanager
    def asked(self, operation: str = "GetObject") -> Iterator[list[str]]:
        """Count the requests of this process to the server."""
        events = s3.client(self.settings.s3).meta.events
        seen: list[str] = []
        note: Callable[..., None] = lambda request, **_: seen.append(request.url)  # noqa: E731
        events.register(f"before-send.s3.{operation}", note)
        yield seen
        events.unregister(f"before-send.s3.{operation}", note)


@pytest.fixture
def desk(seaweed: SeaweedFS, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(seaweed, tmp_path)
    yield made
    made.intake.close()


def reason_of(caught: pytest.ExceptionInfo[PermanentError]) -> Reason:
    return caught.value.reason


# ---- reading


def test_a_source_is_what_was_registered_and_is_fetched_once(desk: Desk) -> None:
    data = secrets.token_bytes(3_000_000)
    source = desk.registered(data)

    with desk.asked() as gets:
        for _ in range(3):
            assert desk.read(source) == data

    assert len(gets) == 1


def test_many_pages_that_wait_for_a_source_fetch_it_once(desk: Desk) -> None:
    data = secrets.token_bytes(2_000_000)
    source = desk.registered(data)

    # As many workers of a machine do: each has its own Sources
    with desk.asked() as gets, ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: desk.read(source, Sources(desk.settings, None)), range(32)))

    assert set(found) == {data}
    assert len(gets) == 1


def test_a_source_that_changed_is_not_read_as_if_it_was_the_one(desk: Desk) -> None:
    source = desk.registered(image(1))
    desk.put(image(2))

    with pytest.raises(PermanentError) as caught:
        desk.read(source)

    assert reason_of(caught) is Reason.SOURCE_CHANGED
    assert not desk.sources.is_where_it_was(source)


def test_a_source_that_is_in_the_cache_is_read_whatever_became_of_it(desk: Desk) -> None:
    source = desk.registered(image(1))
    desk.read(source)
    desk.put(image(2))

    assert desk.read(source) == image(1)


def test_bytes_that_are_not_those_registered_are_refused_and_not_kept(desk: Desk) -> None:
    # Given an ETag that does not depend on the content, as on some servers
    source = desk.registered(image(1))
    other = source.model_copy(update={"sha256": "0" * 64})

    with pytest.raises(PermanentError) as caught:
        desk.read(other)

    assert reason_of(caught) is Reason.SOURCE_CHANGED
    assert [path.name for path in desk.settings.cache.iterdir()] == ["total"]
    with pytest.raises(PermanentError):
        desk.read(source.model_copy(update={"size": source.size + 1}))


def test_a_source_that_is_gone_is_missing(desk: Desk) -> None:
    source = desk.registered(image())
    assert desk.sources.is_where_it_was(source)
    desk.delete()

    with pytest.raises(PermanentError, match="put it back") as caught:
        desk.read(source)

    assert reason_of(caught) is Reason.SOURCE_MISSING
    assert not desk.sources.is_where_it_was(source)


@pytest.mark.parametrize("uri", ["s3://no-such-bucket-here/a", "s3://a..b/a", "s3://bucket-without-key/", "s3:///a"])
def test_a_missing_key_or_bucket_is_reported_as_missing(desk: Desk, uri: str) -> None:
    source = desk.registered(image()).model_copy(update={"uri": uri})

    with pytest.raises(PermanentError) as caught:
        desk.read(source)

    assert reason_of(caught) is Reason.SOURCE_MISSING


@pytest.mark.parametrize("uri", ["http://127.0.0.1/a", "s3:/a", "a", "gs://a/b"])
def test_an_object_that_is_no_source_is_refused(desk: Desk, uri: str) -> None:
    with pytest.raises(PermanentError) as caught:
        desk.read(desk.registered(image()).model_copy(update={"uri": uri}))

    assert reason_of(caught) is Reason.UNSUPPORTED


def test_a_version_is_read_when_there_are_newer_ones(desk: Desk) -> None:
    # Given a bucket that keeps versions
    desk.keep_versions()
    first = desk.put(image(1))
    second = desk.put(image(2))
    assert first.version != second.version
    marker = desk.delete()

    # Then each is read as it was, also when the newest thing is that it was deleted
    for wish, data in ((first, image(1)), (second, image(2))):
        assert desk.read(desk.registered(data, wish)) == data

    # And a version that is gone, or that is a delete marker, is missing
    desk.client.delete_object(Bucket=desk.bucket, Key=KEY, VersionId=str(first.version))
    others = Sources(desk.settings.model_copy(update={"cache": desk.settings.cache.with_name("other")}), None)
    for version in (first.version, marker["VersionId"], None):
        source = desk.registered(image(1), first).model_copy(update={"version": version})
        with pytest.raises(PermanentError) as caught:
            desk.read(source, others)
        assert reason_of(caught) is Reason.SOURCE_MISSING


def test_a_refused_key_pair_is_no_error_of_the_source(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    source = desk.registered(image())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    settings = desk.settings.s3.model_copy(update={"connections": 7})  # a separate client
    sources = Sources(desk.settings.model_copy(update={"s3": settings}), None)

    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
        desk.read(source, sources)
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
        sources.looked_up(SourceReference(name="a", uri=source.uri, size=0))


class Cutting(socketserver.ThreadingTCPServer):
    """A proxy that breaks the connection after a number of bytes of a response, a given number of times."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, endpoint: str, *, cuts: list[int]) -> None:
        self.host, _, port = endpoint.removeprefix("http://").partition(":")
        self.port = int(port)
        self.cuts = cuts
        super().__init__(("127.0.0.1", 0), Way)


class Way(socketserver.BaseRequestHandler):
    server: Cutting

    def handle(self) -> None:
        with socket.create_connection((self.server.host, self.server.port)) as there, suppress(OSError):
            threading.Thread(target=self.forward, args=(there,), daemon=True).start()
            left = self.server.cuts.pop(0) if self.server.cuts else None
            while data := there.recv(65536):
                self.request.sendall(data[:left])
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        self.request.shutdown(socket.SHUT_RDWR)
                        return

    def forward(self, there: socket.socket) -> None:
        with suppress(OSError):
            while data := self.request.recv(65536):
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)


@contextmanager
def cutting(desk: Desk, *cuts: int, attempts: int = 3) -> Iterator[Sources]:
    with Cutting(desk.seaweed.endpoint, cuts=list(cuts)) as way:
        thread = threading.Thread(target=way.serve_forever, args=(0.02,))
        thread.start()
        known = {"endpoint_url": f"http://127.0.0.1:{way.server_address[1]}", "attempts": attempts, "read_timeout": 5.0}
        try:
            yield Sources(desk.settings.model_copy(update={"s3": desk.settings.s3.model_copy(update=known)}), None)
        finally:
            way.shutdown()
            thread.join()


def test_a_connection_that_is_cut_is_no_end(desk: Desk) -> None:
    data = secrets.token_bytes(5_000_000)
    source = desk.registered(data)

    with cutting(desk, 1_000_000, 3_000_000) as sources:
        assert desk.read(source, sources) == data


def test_interrupted_downloads_leave_nothing_and_are_transient(desk: Desk) -> None:
    data = secrets.token_bytes(5_000_000)
    source = desk.registered(data)

    # After a part of it every answer ends before its first byte
    with cutting(desk, 1_000_000, *[50] * 100) as sources:
        with pytest.raises(TransientError):
            desk.read(source, sources)
        assert [path.name for path in desk.settings.cache.iterdir()] == ["total"]

    assert desk.read(source) == data


# ---- what was sent to us


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_an_upload_is_read_from_the_store(desk: Desk, where: str) -> None:
    data = image(3)
    sha256 = hashlib.sha256(data).hexdigest()
    store = desk.store if where == "folder" else S3Store(desk.settings.s3, desk.bucket, "fleet")
    sources = Sources(desk.settings, store)
    intake = Intake(desk.settings, store, sources)
    store.create(keys.upload(sha256), data)
    wish = SourceReference(name="a.tif", uri=uri_of_upload(sha256), size=len(data))

    source = intake.inspect(wish)
    intake.close()

    assert (source.sha256, source.kind, source.pages, source.uri) == (sha256, Kind.TIFF, 1, wish.uri)
    assert sources.is_where_it_was(source)
    assert desk.read(source, sources) == data
    # And what was removed is missing
    store.delete(keys.upload(sha256))
    assert not sources.is_where_it_was(source)
    others = Sources(desk.settings.model_copy(update={"cache": desk.settings.cache.with_name("other")}), store)
    with pytest.raises(PermanentError, match="send it again") as caught:
        desk.read(source, others)
    assert reason_of(caught) is Reason.SOURCE_MISSING


@pytest.mark.parametrize("key", ["documents/a/manifest.json", "uploads/../profiles/a", "/etc/passwd", ""])
def test_only_uploads_of_the_store_are_sources(desk: Desk, key: str) -> None:
    with pytest.raises(PermanentError):
        desk.intake.inspect(SourceReference(name="a", uri=f"store:{key}", size=1))


# ---- intake


def test_an_object_is_taken_in_and_never_fetched_again_while_it_does_not_change(desk: Desk) -> None:
    wish = desk.put(image())

    with desk.asked() as gets:
        source = desk.intake.inspect(wish)
        # By another process of another machine, whose cache is empty
        settings = desk.settings.model_copy(update={"cache": desk.settings.cache.with_name("other")})
        elsewhere = Intake(settings, desk.store)
        assert elsewhere.inspect(wish) == source
        elsewhere.close()

    assert len(gets) == 1
    assert source == desk.registered(image(), wish)


def test_a_source_fetched_by_intake_is_not_downloaded_again(desk: Desk) -> None:
    with desk.asked() as gets:
        source = desk.intake.inspect(desk.put(image()))
        assert desk.read(source) == image()

    assert len(gets) == 1


def test_an_incomplete_source_reference_is_completed_from_s3(desk: Desk) -> None:
    known = desk.put(image())

    source = desk.intake.inspect(SourceReference(name=KEY, uri=known.uri, size=0))

    assert source == desk.registered(image(), known)


def test_an_object_replaced_after_its_submission_is_used_in_its_present_version(desk: Desk) -> None:
    # Given two events of one key, the first of which is processed after the second object was written
    first, second = desk.put(image(1)), desk.put(image(2))

    # Then both are the same document
    assert desk.intake.inspect(first) == desk.intake.inspect(second) == desk.registered(image(2), second)


def test_the_version_in_a_source_reference_is_used(desk: Desk) -> None:
    desk.keep_versions()
    first, _ = desk.put(image(1)), desk.put(image(2))

    assert desk.intake.inspect(first) == desk.registered(image(1), first)
    # Also when the event knows no ETag
    assert desk.intake.inspect(first.model_copy(update={"etag": None})) == desk.registered(image(1), first)


@pytest.mark.parametrize("known", [True, False])
def test_own_outputs_are_no_sources(desk: Desk, *, known: bool) -> None:
    wish = desk.put(image(), Metadata={OWN_OUTPUT: "0" * 32})

    with pytest.raises(OwnOutputError):
        desk.intake.inspect(wish if known else wish.model_copy(update={"etag": None}))

    assert list(desk.store.list("index/")) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", Reason.EMPTY_FILE), (b"hello", Reason.UNSUPPORTED), (b"%PDF-1.7 and no more", Reason.UNREADABLE)],
)
def test_an_object_that_can_not_be_read_has_a_reason(desk: Desk, data: bytes, reason: Reason) -> None:
    with pytest.raises(PermanentError) as caught:
        desk.intake.inspect(desk.put(data))

    assert reason_of(caught) in {reason, Reason.NO_PAGES}


def test_a_reference_to_a_missing_object_fails_with_a_reason(desk: Desk) -> None:
    wish = desk.put(image())
    desk.delete()

    for what in (wish, wish.model_copy(update={"etag": None})):
        with pytest.raises(PermanentError) as caught:
            desk.intake.inspect(what)
        assert reason_of(caught) is Reason.SOURCE_MISSING


def test_several_threads_take_in_at_once(desk: Desk) -> None:
    wishes = [desk.put(image(number), f"{number}.tif") for number in range(24)]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(desk.intake.inspect, wishes))

    assert [source.sha256 for source in found] == [hashlib.sha256(image(n)).hexdigest() for n in range(24)]


# ---- the fleet


def test_workers_read_sources_from_s3_and_each_is_fetched_once(
    seaweed: SeaweedFS, valkey: Valkey, tmp_path: Path
) -> None:
    # Given a book in a bucket
    bucket = seaweed.bucket()
    write_book(tmp_path / "book.tif", list(range(12)))
    seaweed.client.upload_file(str(tmp_path / "book.tif"), bucket, "book.tif")
    stage = Stage(tmp_path, valkey, s3=seaweed.settings())
    try:
        terms = SubmissionOptions(profile_digest=stage.profile.digest, queue=Priority.BULK, collection="all")
        registrar = Registration(stage.store, stage.intake, profile=stage.profile, terms=terms)
        wish = SourceReference(name="book.tif", uri=location.uri(bucket, "book.tif"), size=0)
        # When it is taken in and read by two workers
        for _ in range(2):
            stage.start_worker(OCRFLEET_S3_ENDPOINT_URL=seaweed.endpoint)
        registered = registrar.register_reference(wish, submitted=moment())
        (status,) = stage.finish(registered)
        # Then all of its pages are there
        assert (status.status, status.done) == (DocumentStatus.COMPLETED, 12)
        assert stage.text(registered, 12) == "page number 11"
        cached = [path for path in stage.settings.cache.iterdir() if path.name != "total"]
        assert [path.stat().st_size for path in cached] == [(tmp_path / "book.tif").stat().st_size]
        # And a source that changes before it is read fails with source_changed
        write_book(tmp_path / "other.tif", [20, 21])
        seaweed.client.upload_file(str(tmp_path / "other.tif"), bucket, "other.tif")
        other = registrar.register_reference(
            SourceReference(name="o", uri=location.uri(bucket, "other.tif"), size=0), submitted=moment()
        )
        for path in stage.settings.cache.iterdir():
            path.unlink()
        seaweed.client.put_object(Bucket=bucket, Key="other.tif", Body=b"something else")
        (status,) = stage.finish(other)
        assert {failure.reason for failure in status.failures} == {Reason.SOURCE_CHANGED}
    finally:
        stage.close()
