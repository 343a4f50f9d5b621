from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocrfleet.errors import ConfigurationError, TransientError
from ocrfleet.storage import FolderStore, NotFoundError, ObjectStore


@contextmanager
def folder_store() -> Iterator[ObjectStore]:
    with tempfile.TemporaryDirectory(prefix="ocrfleet-test-") as folder:
        yield FolderStore(Path(folder, "store"))


#: Every store that there is keeps the same contract.
STORES = {"folder": folder_store}

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


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    with STORES[request.param]() as made:
        yield made


class TestContract:
    """What ObjectStore promises, whichever it is."""

    def test_what_was_put_is_there(self, store: ObjectStore) -> None:
        data = bytes(range(256)) * 10

        store.put("a/b/c.json", data)

        assert store.exists("a/b/c.json")
        assert store.get("a/b/c.json") == data
        with store.open("a/b/c.json") as stream:
            assert stream.read(10) == data[:10]
            assert stream.read() == data[10:]

    def test_an_empty_object_is_an_object(self, store: ObjectStore) -> None:
        store.put("active/a", b"")

        assert store.exists("active/a")
        assert store.get("active/a") == b""
        assert list(store.list("active/")) == ["active/a"]

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

    def test_of_32_that_create_at_once_one_wins(self, store: ObjectStore) -> None:
        # Given 32 threads that wait for each other
        barrier = threading.Barrier(32)

        def create(number: int) -> bool:
            barrier.wait()
            return store.create("a/b", b"%d" % number)

        # When they create the same object, several times over
        for attempt in range(5):
            with ThreadPoolExecutor(32) as threads:
                won = list(threads.map(create, range(32)))

            # Then one is told that it won, and it is its object that is there
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

    def test_what_is_not_there(self, store: ObjectStore) -> None:
        store.put("a/b", b"")

        for key in ("a/c", "z", "a/b/c"):
            with pytest.raises(NotFoundError, match=key):
                store.get(key)
            with pytest.raises(NotFoundError, match=key):
                store.open(key)
            assert not store.exists(key)

    def test_a_folder_of_objects_is_no_object(self, store: ObjectStore) -> None:
        store.put("a/b", b"")

        assert not store.exists("a")
        with pytest.raises(NotFoundError):
            store.get("a")

    def test_delete(self, store: ObjectStore) -> None:
        store.put("a/b", b"")
        store.put("a/c", b"")

        store.delete("a/b")
        store.delete("a/b")
        store.delete("never/was")

        assert list(store.list("a/")) == ["a/c"]
        assert not store.exists("a/b")

    def test_a_large_file_becomes_an_object(self, store: ObjectStore, tmp_path: Path) -> None:
        # Given a file of more than one copy's size
        path = tmp_path / "file"
        path.write_bytes(os.urandom(3_000_001))

        # When it is made an object, twice
        first = store.create_from("out/file.md", path)
        again = store.create_from("out/file.md", path)

        # Then it was, once, and the file stays as it was
        assert (first, again) == (True, False)
        assert store.get("out/file.md") == path.read_bytes()
        path.write_bytes(b"changed later")
        assert len(store.get("out/file.md")) == 3_000_001

    @pytest.mark.parametrize("key", REFUSED)
    def test_what_is_no_key_is_refused(self, store: ObjectStore, key: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.get(key),
            lambda: store.open(key),
            lambda: store.exists(key),
            lambda: store.put(key, b""),
            lambda: store.create(key, b""),
            lambda: store.create_from(key, Path(__file__)),
            lambda: store.delete(key),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="not a key"):
                call()

    @pytest.mark.parametrize("prefix", ["../", "a/../", "/", "/etc/", ".tmp/", ""])
    def test_what_is_no_prefix_is_refused(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(ValueError, match="not a key"):
            list(store.list(prefix))
        with pytest.raises(ValueError, match="not a key"):
            store.folders(prefix)

    @pytest.mark.parametrize("make", STORES.values(), ids=STORES)
    @settings(max_examples=40, deadline=None)  # every object is flushed to the disk
    @given(keys=some_keys, other=some_keys, after=st.none() | names)
    @example(keys={"a-b", "a.b", "a/b", "a_b", "ab"}, other={"a"}, after=None)
    @example(keys={"a-b/c", "a.b/c", "a/b", "a/b-", "a/b.c", "a1"}, other=set(), after="a/b")
    @example(keys={"000001.json", "000001.failed-00001.json", "000002.json"}, other=set(), after="000001.json")
    def test_a_listing_is_ordered_as_s3_orders_it(
        self,
        make: Callable[[], AbstractContextManager[ObjectStore]],
        keys: set[str],
        other: set[str],
        after: str | None,
    ) -> None:
        # Given objects below a prefix, and others beside it
        keys = apart(keys)
        with make() as store:
            for key in keys:
                store.put(f"p/{key}", b"")
            for key in apart(other):
                store.put(f"p-{key}", b"")

            # When the prefix is listed, then full keys ascend byte by byte, and nothing else is among them
            wanted = sorted(f"p/{key}" for key in keys)
            assert list(store.list("p/")) == wanted

            # And after a key come those that are greater, be it there or not
            if after is not None:
                start = f"p/{after}"
                assert list(store.list("p/", after=start)) == [key for key in wanted if key > start]

            # And folders are the next level's that hold something
            assert list(store.folders("p/")) == sorted({key.split("/")[0] for key in keys if "/" in key})

    def test_a_listing_of_nothing_is_empty(self, store: ObjectStore) -> None:
        store.put("a/b", b"")

        assert list(store.list("never/")) == []
        assert list(store.folders("never/")) == []
        assert list(store.folders("a/")) == []

    def test_a_folder_without_objects_is_none(self, store: ObjectStore) -> None:
        # Given a collection whose only marker was deleted
        store.put("waiting/bulk/a/1", b"")
        store.put("waiting/bulk/b/1", b"")
        store.delete("waiting/bulk/a/1")

        # Then it is not looked at again
        assert list(store.folders("waiting/bulk/")) == ["b"]

    def test_a_listing_may_be_read_while_objects_go(self, store: ObjectStore) -> None:
        # Given a listing that has begun
        for number in range(5):
            store.put(f"waiting/bulk/c{number}/1", b"")
        listing = store.list("waiting/bulk/")
        first = next(listing)

        # When a dispatcher deletes what it was given, then the listing goes on
        store.delete(first)
        store.delete("waiting/bulk/c3/1")
        rest = list(listing)
        assert rest[:2] == ["waiting/bulk/c1/1", "waiting/bulk/c2/1"]
        assert "waiting/bulk/c4/1" in rest


class TestFolderStore:
    """What is a folder's own."""

    def test_what_is_half_written_is_never_listed(self, tmp_path: Path) -> None:
        # Given a writer that was killed half-way
        store = FolderStore(tmp_path)
        store.put("a/b", b"")
        temporary = tmp_path / ".tmp" / "0123"
        temporary.write_bytes(b"hal")

        # Then nobody sees it
        assert list(store.list("a/")) == ["a/b"]
        assert list(store.folders("a/")) == []

        # And a later start removes it, and nothing else
        store.clear_temporary()
        assert not temporary.exists()
        assert store.exists("a/b")

    def test_nothing_is_left_aside(self, tmp_path: Path) -> None:
        # Given a store in which objects were written, twice, and in vain
        store = FolderStore(tmp_path)
        store.put("a/b", b"")
        store.put("a/b", b"")
        store.create("a/b", b"")
        store.create_from("a/c", Path(__file__))
        with pytest.raises(TransientError):
            store.create_from("a/d", tmp_path / "missing")

        assert list((tmp_path / ".tmp").iterdir()) == []
        assert not store.exists("a/d")

    def test_another_store_sees_the_same(self, tmp_path: Path) -> None:
        FolderStore(tmp_path).put("a/b", b"x")

        assert FolderStore(tmp_path).get("a/b") == b"x"

    def test_a_folder_that_can_not_be_made_is_a_matter_of_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")

        with pytest.raises(ConfigurationError, match="file/store"):
            FolderStore(tmp_path / "file" / "store")

    def test_where_there_are_no_hard_links_create_still_replaces_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a file system such as exFAT
        def link(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
        store = FolderStore(tmp_path)

        # Then creating works as elsewhere
        assert store.create("a/b", b"first") is True
        assert store.create("a/b", b"second") is False
        assert store.get("a/b") == b"first"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_store_that_can_not_be_written_may_be_so_later(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path / "store")
        (tmp_path / "store" / ".tmp").chmod(0o500)
        (tmp_path / "store").chmod(0o500)

        with pytest.raises(TransientError, match="a/b"):
            store.put("a/b", b"")
        (tmp_path / "store").chmod(0o700)

    def test_a_full_disk_is_nobodys_fault(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given a disk that is full
        def fsync(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        store = FolderStore(tmp_path)
        monkeypatch.setattr(os, "fsync", fsync)

        # When something is written, then it is to be tried again, and no half object is there
        for write in (store.put, store.create):
            with pytest.raises(TransientError, match="No space left"):
                write("a/b", b"x")
        assert not store.exists("a/b")
        assert list((tmp_path / ".tmp").iterdir()) == []

    @pytest.mark.parametrize(
        "call",
        [
            "get",
            "open",
            "put",
            "delete",
            "exists",
            "list",
            "folders",
        ],
    )
    def test_a_share_that_went_away_is_nobodys_fault(self, tmp_path: Path, call: str) -> None:
        # Given a store that was there, and whose folder then gives errors: a link to itself stands for EIO and ESTALE
        store = FolderStore(tmp_path / "store")
        store.put("a/b", b"")
        (tmp_path / "store").rename(tmp_path / "elsewhere")
        (tmp_path / "store").symlink_to(tmp_path / "store")
        calls: dict[str, Callable[[], object]] = {
            "get": lambda: store.get("a/b"),
            "open": lambda: store.open("a/b"),
            "put": lambda: store.put("a/b", b""),
            "delete": lambda: store.delete("a/b"),
            "exists": lambda: store.exists("a/b"),
            "list": lambda: list(store.list("a/")),
            "folders": lambda: store.folders("a/"),
        }

        # When it is used, then trying again later is the answer
        with pytest.raises(TransientError):
            calls[call]()

    def test_a_store_whose_folder_is_gone_is_away_and_not_empty(self, tmp_path: Path) -> None:
        # Given a share that was unmounted
        store = FolderStore(tmp_path / "store")
        store.put("a/b", b"")
        (tmp_path / "store").rename(tmp_path / "elsewhere")

        # Then nobody is told that its objects do not exist
        with pytest.raises(TransientError):
            store.get("a/b")

    @pytest.mark.parametrize("stray", [".DS_Store", ".nfs000000000000123400000001", "a b"])
    def test_files_of_others_are_not_listed(self, tmp_path: Path, stray: str) -> None:
        # Given a file that the operating system left in a folder of the store
        store = FolderStore(tmp_path)
        store.put("active/a", b"")
        (tmp_path / "active" / stray).write_bytes(b"")

        # Then every key that is listed can be read
        assert [store.get(key) for key in store.list("active/")] == [b""]
