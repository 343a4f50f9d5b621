"""`submit` of files: each becomes a source reference, by its path or as an uploaded copy; skipped files are reported."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import keys
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeBatch, SourceReference, SubmissionOptions
from ocrfleet.sources.sources import path_of, uri_of_upload
from ocrfleet.storage.store import FolderStore
from producer.intake.batches import Count
from producer.intake.local_files import submit_files

TERMS = SubmissionOptions(profile_digest="0" * 64, queue=Priority.BULK, collection="c")


class Elsewhere:
    """A store that is no folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.inner = FolderStore(folder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    (folder / "box").mkdir(parents=True)
    for name in ("a.pdf", "box/b.pdf"):
        (folder / name).write_bytes(b"%PDF-1.7 " + name.encode())
    (folder / "notes.txt").write_text("no document")
    return folder


def wishes(store: Any) -> dict[str, SourceReference]:
    arrivals = [IntakeBatch.from_bytes(store.get(key)) for key in store.list("arrivals/")]
    return {wish.name: wish for arrival in arrivals for wish in arrival.wishes}


def test_files_are_referenced_where_all_see_them(store: FolderStore, scans: Path) -> None:
    count = Count()
    skipped = submit_files(store, TERMS, [scans], count, progress=lambda: None)
    assert {name: path_of(wish.uri) for name, wish in wishes(store).items()} == {
        "a.pdf": scans / "a.pdf",
        "box/b.pdf": scans / "box" / "b.pdf",
    }
    assert (count.seen, count.submitted, count.skipped, count.known) == (3, 2, 1, 0)
    assert [item.name for item in skipped] == ["notes.txt"]
    assert list(store.list(keys.UPLOADS)) == []


def test_the_current_folder_can_be_submitted(store: FolderStore, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scans)
    submit_files(store, TERMS, [Path()], Count(), progress=lambda: None)
    assert set(wishes(store)) == {"a.pdf", "box/b.pdf"}


def test_files_are_uploaded_under_the_hash_of_the_uploaded_bytes(tmp_path: Path, scans: Path) -> None:
    store = Elsewhere(tmp_path / "store")
    submit_files(store, TERMS, [scans], Count(), progress=lambda: None)
    for name, wish in wishes(store).items():
        data = (scans / name).read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        assert (wish.uri, wish.size) == (uri_of_upload(sha256), len(data))
        assert store.get(keys.upload(sha256)) == data


def test_a_file_that_changes_during_its_upload_is_not_stored_under_a_wrong_hash(tmp_path: Path, scans: Path) -> None:
    # Given a file that is written to between its reading and its sending
    class Changing(Elsewhere):
        def create_from(self, key: str, path: Path) -> bool:
            for name in ("a.pdf", "box/b.pdf"):
                (scans / name).write_bytes(b"%PDF-1.7 changed")
            return self.inner.create_from(key, path)

    store = Changing(tmp_path / "store")
    submit_files(store, TERMS, [scans], Count(), progress=lambda: None)
    for wish in wishes(store).values():
        stored = store.get(wish.uri.removeprefix("store:"))
        assert wish.uri == uri_of_upload(hashlib.sha256(stored).hexdigest())


def test_a_file_that_vanishes_before_its_upload_is_reported(
    store: FolderStore, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanished(_: Any) -> Any:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("producer.intake.local_files._referenced", vanished)
    count = Count()
    skipped = submit_files(store, TERMS, [scans / "a.pdf"], count, progress=lambda: None)
    assert [(item.name, item.reason) for item in skipped] == [("a.pdf", "it can't be read: No such file or directory")]
    assert (count.seen, count.submitted, count.skipped) == (1, 0, 1)
