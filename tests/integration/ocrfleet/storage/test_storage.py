from __future__ import annotations

import io
import os
import secrets
import shutil
import socket
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocrfleet.errors import ConfigurationError, NotFoundError, TransientError
from ocrfleet.s3 import client as s3
from ocrfleet.settings import S3Settings, Settings
from ocrfleet.storage.open import open_store
from ocrfleet.storage.s3_store import S3Store
from ocrfleet.storage.store import FolderStore, ObjectStore
from tests.support.servers import SeaweedFS
from tests.support.waiting import scaled, until

#: Makes a new, empty store.
Making = Callable[[], AbstractContextManager[ObjectStore]]

#: S3's least size of a part; larger files go in several.
PART = 5 << 20


@contextmanager
def folder_store() -> Iterator[ObjectStore]:
    with tempfile.TemporaryDirectory(prefix="ocrfleet-test-") as folder:
        yield FolderStore(Path(folder, "store"))


@pytest.fixture(scope="module")
def bucket(seaweed: SeaweedFS) -> str:
    return seaweed.bucket()


#: Every store that there is keeps the same contract.
@pytest.fixture(scope="module", params=["folder", "s3"])
def make(request: pytest.FixtureRequest) -> Making:
    if request.param == "folder":
        return folder_store
    seaweed, bucket = request.getfixturevalue("seaweed"), request.getfixturevalue("bucket")

    @contextmanager
    def s3_store() -> Iterator[ObjectStore]:
        yield S3Store(seaweed.settings(), bucket, f"a fleet's/{secrets.token_hex(6)}", part=PART)

    return s3_store


REFUSED = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "a/./b",
    ".",
    ".tmp/a",
    "a/.b",
    "a//b",
    "a/",
    "-a",
    "a b",
    "a\\b",
    "a\n",
    "a\x00b",
    "a:b",
    "a%2fb",
    "é",
    "a/\udcff",
]

names = st.text("ab.-_1", min_size=1, max_size=3).filter(lambda name: name[0] not in ".-")
some_keys = st.sets(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=12)


def apart(keys: set[str]) -> set[str]:
    """Leave out the keys that are folders of others: a file system has no such pair, and keys.py makes none."""
    return {key for key in keys if not any(other.startswith(key + "/") for other in keys)}


@pytest.fixture
def store(make: Making) -> Iterator[ObjectStore]:
    with make() as made:
        yield made


class TestContract:
    """Contract of ObjectStore, for each implementation."""

    def test_a_stored_object_can_be_read(self, store: ObjectStore) -> None:
        data = bytes(range(256)) * 10

        store.put("a/b/c.json", data)

        assert store.exists("a/b/c.json")
        assert store.get("a/b/c.json") == data
        with store.open("a/b/c.json") as stream:
            assert stream.read(10) == data[:10]
            assert stream.read() == data[10:]

    def test_an_empty_object_is_none(self, store: ObjectStore) -> None:
        for write in (store.put, store.create):
            with pytest.raises(ValueError, match="at least one byte: active/a"):
                write("active/a", b"")

        assert not store.exists("active/a")

    def test_put_replaces(self, store: ObjectStore) -> None:
        store.put("a/b", b"a long first value")
        store.put("a/b", b"second")

        assert store.get("a/b") == b"second"
        assert list(store.list("a/")) == ["a/b"]

    def test_create_replaces_nothing(self, store: ObjectStore) -> None:
        assert store.create("a/b", b"first") is True
        assert store.create("a/b", b"second") is False

        assert store.get("a/b") == b"first"

    def test_create_after_delete_creates(self, store: ObjectStore) -> None:
        store.create("a/b", b"first")
        store.delete("a/b")

        assert store.create("a/b", b"second") is True
        assert store.get("a/b") == b"second"

    def test_one_of_32_simultaneous_creations_wins(self, store: ObjectStore) -> None:
        # Given 32 threads that wait for each other
        barrier = threading.Barrier(32)

        def create(number: int) -> bool:
            barrier.wait()
            return store.create("a/b", b"%d" % number)

        # When they create the same object, several times over
        for attempt in range(3):
            with ThreadPoolExecutor(32) as threads:
                won = list(threads.map(create, range(32)))

            # Then one call returns True, and its object is stored
            assert won.count(True) == 1
            assert store.get("a/b") == b"%d" % won.index(True), attempt
            store.delete("a/b")

    def test_a_reader_never_sees_half_an_object(self, store: ObjectStore) -> None:
        # Given a writer that replaces an object again and again
        values = [bytes([letter]) * 200_000 for letter in b"xy"]
        store.put("a/b", values[0])
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                for value in values:
                    store.put("a/b", value)

        with ThreadPoolExecutor(1) as threads:
            writer = threads.submit(write)
            # When it is read meanwhile, then what is read is one value or the other
            seen = [store.get("a/b") for _ in range(200)]
            stop.set()
            writer.result()
        assert all(value in values for value in seen)

    def test_a_missing_object_raises_not_found(self, store: ObjectStore) -> None:
        store.put("a/b", b".")

        for key in ("a/c", "z", "a/b/c"):
            with pytest.raises(NotFoundError, match=key):
                store.get(key)
            with pytest.raises(NotFoundError, match=key):
                store.open(key)
            assert not store.exists(key)

    def test_a_folder_of_objects_is_no_object(self, store: ObjectStore) -> None:
        store.put("a/b", b".")

        assert not store.exists("a")
        with pytest.raises(NotFoundError):
            store.get("a")

    def test_delete(self, store: ObjectStore) -> None:
        store.put("a/b", b".")
        store.put("a/c", b".")

        store.delete("a/b")
        store.delete("a/b")
        store.delete("never/was")

        assert list(store.list("a/")) == ["a/c"]
        assert not store.exists("a/b")

    def test_a_large_file_becomes_an_object(self, store: ObjectStore, tmp_path: Path) -> None:
        # Given a file of more than one part
        path = tmp_path / "file"
        path.write_bytes(os.urandom(2 * PART + 1))

        # When it is made an object, twice
        first = store.create_from("out/file.md", path)
        again = store.create_from("out/file.md", path)

        # Then it was created once, and the file is unchanged
        assert (first, again) == (True, False)
        assert store.get("out/file.md") == path.read_bytes()
        path.write_bytes(b"changed later")
        assert len(store.get("out/file.md")) == 2 * PART + 1

    def test_one_of_many_simultaneous_uploads_of_a_file_wins(self, store: ObjectStore, tmp_path: Path) -> None:
        # Given files of several parts with different content
        paths = [tmp_path / str(number) for number in range(4)]
        for number, path in enumerate(paths):
            path.write_bytes(b"%d" % number * (PART + 1))
        barrier = threading.Barrier(len(paths))

        def create(path: Path) -> bool:
            barrier.wait()
            return store.create_from("a/b", path)

        # When they are made the same object at once
        with ThreadPoolExecutor(len(paths)) as threads:
            won = list(threads.map(create, paths))

        # Then one wins, and the object is its file. SeaweedFS looks whether there is an object before it makes one of parts,
        # so several may win there: files go to names of their content
        winners = [path.read_bytes() for path, one in zip(paths, won, strict=True) if one]
        assert store.get("a/b") in winners
        assert len(winners) == 1 or isinstance(store, S3Store)

    def test_uploading_a_missing_file_creates_no_object(self, store: ObjectStore, tmp_path: Path) -> None:
        with pytest.raises(TransientError, match="a/d"):
            store.create_from("a/d", tmp_path / "missing")

        assert not store.exists("a/d")

    def test_a_stream_is_read_as_a_file_is(self, store: ObjectStore) -> None:
        # Given lines of text
        lines = [f"line {number} äöü\n" for number in range(30_000)]
        store.put("a/b", "".join(lines).encode())

        # Then they come as from a file
        with io.TextIOWrapper(store.open("a/b"), encoding="utf-8", newline="\n") as text:
            assert list(text) == lines
        copy = io.BytesIO()
        with store.open("a/b") as stream:
            shutil.copyfileobj(stream, copy)
            assert stream.read(1) == b""
        assert copy.getvalue() == "".join(lines).encode()

    def test_a_large_object_is_streamed(self, store: ObjectStore, tmp_path: Path) -> None:
        # Given an object of 64 MB
        path = tmp_path / "file"
        with path.open("wb") as file:
            for number in range(64):
                file.write(bytes([number]) * 1_000_000)
        tracemalloc.start()
        try:
            # When it is written and read piece by piece
            store.create_from("a/b", path)
            size = 0
            with store.open("a/b") as stream:
                while piece := stream.read(100_000):
                    assert piece[0] == size // 1_000_000
                    size += len(piece)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        # Then it is complete, and was never in memory as a whole
        assert size == 64_000_000
        assert most < 40_000_000

    def test_a_long_listing_comes_in_pages(self, store: ObjectStore) -> None:
        # Given more objects than S3 lists in one answer
        wanted = [f"active/{number:05d}" for number in range(1100)]
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda key: store.put(key, b"."), wanted))

        assert list(store.list("active/")) == wanted
        assert list(store.list("active/", after=wanted[1050])) == wanted[1051:]
        assert list(store.folders("active/")) == []

    @pytest.mark.parametrize("key", REFUSED)
    def test_an_invalid_key_is_refused(self, store: ObjectStore, key: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.get(key),
            lambda: store.open(key),
            lambda: store.exists(key),
            lambda: store.put(key, b"."),
            lambda: store.create(key, b"."),
            lambda: store.create_from(key, Path(__file__)),
            lambda: store.delete(key),
            lambda: store.presigned(key, seconds=1, filename="a", content_type="text/plain"),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="not a key"):
                call()

    @pytest.mark.parametrize("prefix", ["../", "a/../", "/", "/etc/", ".tmp/", ""])
    def test_an_invalid_prefix_is_refused(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(ValueError, match="not a key"):
            list(store.list(prefix))
        with pytest.raises(ValueError, match="not a key"):
            store.folders(prefix)

    @settings(max_examples=20, deadline=None)  # every object is flushed to the disk
    @given(keys=some_keys, other=some_keys, after=st.none() | names)
    @example(keys={"a-b", "a.b", "a/b", "a_b", "ab"}, other={"a"}, after=None)
    @example(keys={"a-b/c", "a.b/c", "a/b", "a/b-", "a/b.c", "a1"}, other=set(), after="a/b")
    @example(keys={"000001.json", "000001.failed-00001.json", "000002.json"}, other=set(), after="000001.json")
    def test_a_listing_is_complete_and_in_order(
        self, make: Making, keys: set[str], other: set[str], after: str | None
    ) -> None:
        # Given objects below a prefix, and others beside it
        keys = apart(keys)
        with make() as store:
            for key in keys:
                store.put(f"p/{key}", b".")
            for key in apart(other):
                store.put(f"p-{key}", b".")

            # When the prefix is listed, then full keys ascend, byte by byte or folder by folder, and nothing else is among them
            wanted = {f"p/{key}" for key in keys}
            listed = list(store.list("p/"))
            assert listed in (sorted(wanted), sorted(wanted, key=lambda key: key.split("/")))

            # And a listing after a key continues behind it
            for number, key in enumerate(listed):
                assert list(store.list("p/", after=key)) == listed[number + 1 :]

            # And folders are the next level's that hold something
            assert list(store.folders("p/")) == sorted({key.split("/")[0] for key in keys if "/" in key})

            # And in one folder, after a key come those that are greater, be it there or not
            if after is not None and not any("/" in key for key in keys):
                assert listed == sorted(wanted)
                assert list(store.list("p/", after=f"p/{after}")) == [key for key in listed if key > f"p/{after}"]

    def test_a_listing_of_nothing_is_empty(self, store: ObjectStore) -> None:
        store.put("a/b", b".")

        assert list(store.list("never/")) == []
        assert list(store.folders("never/")) == []
        assert list(store.folders("a/")) == []

    def test_a_folder_without_objects_has_nothing(self, store: ObjectStore) -> None:
        # Given a collection whose only marker was deleted
        store.put("waiting/bulk/a/1", b".")
        store.put("waiting/bulk/b/1", b".")
        store.delete("waiting/bulk/a/1")

        # Then it is not listed again, or with an empty result: SeaweedFS keeps an empty folder for a while
        folders = list(store.folders("waiting/bulk/"))
        assert folders == ["b"] if isinstance(store, FolderStore) else "b" in folders
        assert list(store.list("waiting/bulk/a/")) == []

    def test_a_listing_may_be_read_while_objects_go(self, store: ObjectStore) -> None:
        # Given a listing that has begun
        for number in range(5):
            store.put(f"waiting/bulk/c{number}/1", b".")
        listing = store.list("waiting/bulk/")
        first = next(listing)

        # When a dispatcher deletes what it was given, then the listing goes on
        store.delete(first)
        store.delete("waiting/bulk/c3/1")
        rest = list(listing)
        assert rest[:2] == ["waiting/bulk/c1/1", "waiting/bulk/c2/1"]
        assert "waiting/bulk/c4/1" in rest


class TestS3Store:
    """Behaviour specific to S3, on a real server."""

    def test_its_objects_lie_below_its_prefix(self, seaweed: SeaweedFS, bucket: str) -> None:
        store = S3Store(seaweed.settings(), bucket, "/some/place/")
        store.put("a/b", b"x")
        seaweed.client.put_object(Bucket=bucket, Key="some/place/a/not a key", Body=b"")

        assert seaweed.client.get_object(Bucket=bucket, Key="some/place/a/b")["Body"].read() == b"x"
        assert list(store.list("a/")) == ["a/b"]
        assert S3Store(seaweed.settings(), bucket, "some").get("place/a/b") == b"x"

    def test_a_bucket_without_a_prefix(self, seaweed: SeaweedFS) -> None:
        bucket = seaweed.bucket()
        store = open_store(Settings(store=f"s3://{bucket}", s3=seaweed.settings()))
        store.create("a/b/c", b"x")

        assert list(store.list("a/")) == ["a/b/c"]
        assert list(store.folders("a/")) == ["b"]
        assert seaweed.client.get_object(Bucket=bucket, Key="a/b/c")["Body"].read() == b"x"

    def test_a_presigned_url_needs_no_credentials(self, seaweed: SeaweedFS, bucket: str) -> None:
        # Given a URL for an object
        store = S3Store(seaweed.settings(), bucket, "p")
        store.put("a/b", b"text")
        url = store.presigned("a/b", seconds=60, filename='très "grand".md', content_type="text/markdown")

        # When a client without credentials opens it
        assert url is not None
        with urlopen(url) as answer:  # noqa: S310 - of our own server
            # Then it is a file of the name that was given
            assert answer.read() == b"text"
            assert answer.headers["Content-Type"] == "text/markdown"
            assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''tr%C3%A8s%20%22grand%22.md"
        with pytest.raises(HTTPError, match="403"):
            urlopen(url.replace("X-Amz-Signature=", "X-Amz-Signature=0"))  # noqa: S310

    def test_a_presigned_url_names_the_endpoint_that_clients_reach(self, seaweed: SeaweedFS, bucket: str) -> None:
        # Given a server that clients reach by another name than we do
        known = seaweed.settings()
        public = (known.endpoint_url or "").replace("127.0.0.1", "localhost")
        store = S3Store(known.model_copy(update={"public_endpoint_url": public}), bucket, "p")
        store.put("a/b", b"text")

        url = store.presigned("a/b", seconds=60, filename="a.md", content_type="text/markdown")

        assert url is not None
        assert url.startswith(f"{public}/{bucket}/p/a/b?")
        with urlopen(url) as answer:  # noqa: S310 - of our own server
            assert answer.read() == b"text"

    def test_a_lost_multipart_upload_leaves_no_parts(self, seaweed: SeaweedFS, bucket: str, tmp_path: Path) -> None:
        # Given a file of several parts, and an object that appears while they are sent
        store = S3Store(seaweed.settings(), bucket, "lost", part=PART)
        path = tmp_path / "file"
        path.write_bytes(bytes(PART + 1))

        class Late(S3Store):
            def exists(self, key: str) -> bool:
                store.put(key, b"first")
                return False

        # Then the file is not stored, and its parts are removed
        assert Late(seaweed.settings(), bucket, "lost", part=PART).create_from("a/b", path) is False
        assert store.get("a/b") == b"first"
        assert "Uploads" not in seaweed.client.list_multipart_uploads(Bucket=bucket, Prefix="lost/")

    def test_an_empty_object_of_a_dead_writer_is_missing_and_is_replaced(self, seaweed: SeaweedFS, bucket: str) -> None:
        # Given two objects whose writers died between the headers and the body of their requests
        store = S3Store(seaweed.settings(), bucket, "torn")
        for key in ("a/b", "a/c"):
            url = seaweed.client.generate_presigned_url(
                "put_object", Params={"Bucket": bucket, "Key": f"torn/{key}"}, ExpiresIn=60
            )
            place = urlsplit(url)
            with socket.create_connection((place.hostname, place.port)) as dying:
                head = f"PUT {place.path}?{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 9\r\n\r\n"
                dying.sendall(head.encode())
            until(partial(self._is_empty, seaweed, bucket, f"torn/{key}"))
        # Then there is no object
        assert not store.exists("a/b")
        assert list(store.list("a/")) == []
        with pytest.raises(NotFoundError, match="nothing is in it"):
            store.get("a/b")
        # And of many who write what is missing, one wins
        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(lambda number: store.create("a/b", b"text %d" % number), range(8)))
        assert won.count(True) == 1
        assert store.get("a/b") == b"text %d" % won.index(True)
        store.put("a/c", b"text")
        assert list(store.list("a/")) == ["a/b", "a/c"]

    @staticmethod
    def _is_empty(seaweed: SeaweedFS, bucket: str, key: str) -> bool:
        try:
            return seaweed.client.head_object(Bucket=bucket, Key=key)["ContentLength"] == 0
        except ClientError:
            return False

    def test_a_wrong_bucket_is_reported_at_the_start(self, seaweed: SeaweedFS) -> None:
        with pytest.raises(ConfigurationError, match="s3://no-such-bucket/p/: the bucket doesn't exist"):
            open_store(Settings(store="s3://no-such-bucket/p", s3=seaweed.settings()))

    @pytest.mark.parametrize("place", ["s3://", "s3:///prefix", "s3://a b/c"])
    def test_an_invalid_store_is_reported_at_the_start(self, place: str) -> None:
        with pytest.raises(ConfigurationError, match="OCRFLEET_STORE"):
            open_store(Settings(store=place))

    @pytest.mark.usefixtures("new_clients")
    @pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
    def test_a_wrong_key_pair_is_reported_at_the_start(
        self, seaweed: SeaweedFS, bucket: str, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, "0123456789wrong")

        with pytest.raises(ConfigurationError, match="doesn't accept the key pair") as told:
            open_store(Settings(store=f"s3://{bucket}/p", s3=seaweed.settings()))

        assert "wrong" not in str(told.value)

    @pytest.mark.usefixtures("new_clients")
    def test_a_missing_permission_is_reported(
        self, seaweed: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a client with read permission only
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.reader[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.reader[1])
        store = open_store(Settings(store=f"s3://{bucket}/p", s3=seaweed.settings()))

        # When it writes, then the error names the missing permission
        for write in (store.put, store.create):
            with pytest.raises(TransientError, match="s3:PutObject"):
                write("a/b", b".")

    def test_a_killed_server_is_waited_for(self, seaweed: SeaweedFS, bucket: str) -> None:
        # Given a store, a stream that has begun, and settings that wait a second at most
        hasty = S3Settings(endpoint_url=seaweed.endpoint, attempts=2, connect_timeout=scaled(1), read_timeout=scaled(1))
        store = S3Store(hasty, bucket, "killed")
        data = os.urandom(8_000_000)
        store.put("a/b", data)
        stream = store.open("a/b")
        head = stream.read(100)

        # When the server is killed, then each request raises TransientError
        seaweed.kill()
        try:
            calls: list[Callable[[], object]] = [
                lambda: store.get("a/b"),
                lambda: store.open("a/b"),
                lambda: store.exists("a/b"),
                lambda: store.put("a/c", b"."),
                lambda: store.create("a/c", b"."),
                lambda: store.delete("a/b"),
                lambda: list(store.list("a/")),
                lambda: store.folders("a/"),
                lambda: store.create_from("a/c", Path(__file__)),
            ]
            for call in calls:
                with pytest.raises(TransientError, match="killed/a/"):
                    call()
        finally:
            seaweed.start()

        # And after its restart, the objects are there, and the stream continues
        assert head + stream.read() == data
        stream.close()
        assert list(store.list("a/")) == ["a/b"]
        assert store.create("a/c", b"new") is True


@pytest.fixture
def new_clients() -> Iterator[None]:
    """Remove cached clients with other credentials, before and after."""
    s3.client.cache_clear()
    yield
    s3.client.cache_clear()
