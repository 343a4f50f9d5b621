from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ocrfleet.errors import ConfigurationError, TransientError
from ocrfleet.storage.store import FolderStore


class TestFolderStore:
    """Behaviour specific to FolderStore; the contract of all stores is in tests/integration/ocrfleet/storage/test_storage.py."""

    def test_a_partly_written_object_is_never_listed(self, tmp_path: Path) -> None:
        # Given a writer that was killed half-way
        store = FolderStore(tmp_path)
        store.put("a/b", b".")
        temporary = tmp_path / ".tmp" / "0123"
        temporary.write_bytes(b"hal")

        # Then it is not visible
        assert list(store.list("a/")) == ["a/b"]
        assert list(store.folders("a/")) == []

        # And a later start removes it, and nothing else
        store.clear_temporary()
        assert not temporary.exists()
        assert store.exists("a/b")

    def test_no_temporary_files_are_left(self, tmp_path: Path) -> None:
        # Given a store in which objects were written, twice, and in vain
        store = FolderStore(tmp_path)
        store.put("a/b", b".")
        store.put("a/b", b".")
        store.create("a/b", b".")
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
            store.put("a/b", b".")
        (tmp_path / "store").chmod(0o700)

    def test_a_full_disk_is_transient(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    def test_an_unreachable_share_is_transient(self, tmp_path: Path, call: str) -> None:
        # Given a store whose folder then returns errors: a link to itself simulates EIO and ESTALE
        store = FolderStore(tmp_path / "store")
        store.put("a/b", b".")
        (tmp_path / "store").rename(tmp_path / "elsewhere")
        (tmp_path / "store").symlink_to(tmp_path / "store")
        calls: dict[str, Callable[[], object]] = {
            "get": lambda: store.get("a/b"),
            "open": lambda: store.open("a/b"),
            "put": lambda: store.put("a/b", b"."),
            "delete": lambda: store.delete("a/b"),
            "exists": lambda: store.exists("a/b"),
            "list": lambda: list(store.list("a/")),
            "folders": lambda: store.folders("a/"),
        }

        # When it is used, then trying again later is the answer
        with pytest.raises(TransientError):
            calls[call]()

    def test_a_store_whose_folder_is_gone_is_unreachable_not_empty(self, tmp_path: Path) -> None:
        # Given a share that was unmounted
        store = FolderStore(tmp_path / "store")
        store.put("a/b", b".")
        (tmp_path / "store").rename(tmp_path / "elsewhere")

        # Then the error is not that its objects do not exist
        with pytest.raises(TransientError):
            store.get("a/b")

    @pytest.mark.parametrize("stray", [".DS_Store", ".nfs000000000000123400000001", "a b"])
    def test_files_of_others_are_not_listed(self, tmp_path: Path, stray: str) -> None:
        # Given a file that the operating system left in a folder of the store
        store = FolderStore(tmp_path)
        store.put("active/a", b".")
        (tmp_path / "active" / stray).write_bytes(b"")

        # Then every key that is listed can be read
        assert [store.get(key) for key in store.list("active/")] == [b"."]
