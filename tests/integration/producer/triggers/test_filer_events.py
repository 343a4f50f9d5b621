"""SeaweedFS's own webhook, from the real server: one event for each change of an object."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from producer.triggers.notifications import ObjectEvent, parse
from tests.support.servers import SeaweedFS
from tests.support.waiting import until


class Hook(ThreadingHTTPServer):
    """Records POST requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    made = Hook()
    with made.serving():
        yield made


@pytest.fixture(scope="module")
def server(hook: Hook) -> Iterator[SeaweedFS]:
    made = SeaweedFS()
    made.kill()
    (made.folder / "notification.toml").write_text(
        f'[notification.webhook]\nenabled = true\nendpoint = "http://127.0.0.1:{hook.server_port}/"\n'
    )
    made.start()
    yield made
    made.close()


def events_of(hook: Hook, bucket: str, wanted: set[tuple[str, str | None, bool]]) -> list[ObjectEvent]:
    """Return the events of a bucket once the expected ones (key, ETag or version, created) have arrived, in any order."""

    def events() -> list[ObjectEvent]:
        return [event for body in list(hook.bodies) for event in parse(body) if event.bucket == bucket]

    until(
        lambda: wanted <= {(event.key, event.version or event.etag, event.created) for event in events()},
        otherwise=events,
    )
    return events()


def test_each_written_object_is_an_event_with_its_etag_and_nothing_else_is(server: SeaweedFS, hook: Hook) -> None:
    bucket, client = server.bucket(), server.client
    client.put_object(Bucket=bucket, Key="a b/ä+ü%41.pdf", Body=b"one")
    client.put_object(Bucket=bucket, Key="a b/ä+ü%41.pdf", Body=b"two")
    upload = client.create_multipart_upload(Bucket=bucket, Key="large.pdf")["UploadId"]
    part = client.upload_part(Bucket=bucket, Key="large.pdf", UploadId=upload, PartNumber=1, Body=b"x" * 100)
    client.complete_multipart_upload(
        Bucket=bucket,
        Key="large.pdf",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    client.copy_object(Bucket=bucket, Key="copy.pdf", CopySource={"Bucket": bucket, "Key": "large.pdf"})
    gone = client.put_object(Bucket=bucket, Key="gone.pdf", Body=b"gone")["ETag"].strip('"')
    client.delete_object(Bucket=bucket, Key="gone.pdf")
    etags = {
        key: client.head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
        for key in ("a b/ä+ü%41.pdf", "large.pdf", "copy.pdf")
    }

    wanted = {(key, etag, True) for key, etag in etags.items()} | {("gone.pdf", gone, True), ("gone.pdf", gone, False)}
    events = events_of(hook, bucket, wanted)  # type: ignore[arg-type]

    assert {event.key for event in events} == {*etags, "gone.pdf"}
    assert {event.size for event in events if event.key == "large.pdf"} == {100}


def test_versions_and_delete_markers_are_events_of_the_object_itself(server: SeaweedFS, hook: Hook) -> None:
    bucket, client = server.bucket(), server.client
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = client.put_object(Bucket=bucket, Key="v.pdf", Body=b"v")["VersionId"]
    marker = client.delete_object(Bucket=bucket, Key="v.pdf")["VersionId"]

    events = events_of(hook, bucket, {("v.pdf", version, True), ("v.pdf", marker, False)})

    assert {event.key for event in events} == {"v.pdf"}
