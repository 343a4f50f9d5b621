# mypy: allow-untyped-calls
# (PyMuPDF calls itself typed, but annotates no Document.)
from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymupdf
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from ocrfleet import keys
from ocrfleet.errors import PermanentError, Reason
from ocrfleet.profiles.profile import RAPIDOCR, TESSERACT, Profile
from ocrfleet.records.documents import DocumentStatus, Failure, Kind, Manifest, Marker, Problem, Source, Status
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import Submission, SubmissionOptions
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import path_of, uri_of
from ocrfleet.storage.store import FolderStore
from producer.intake.discover import Candidate
from producer.intake.inspect import Intake
from producer.intake.page_ranges import select
from producer.intake.register import Registered, Registration
from producer.state.statuses import latest_status

COLLECTION = "run-0"
#: Age in seconds at which a file does not count as still being written
OLD = 100


def pdf(path: Path, pages: int = 1, *, text: str = "", password: str | None = None) -> Path:
    locked = {"encryption": pymupdf.PDF_ENCRYPT_AES_256, "user_pw": password, "owner_pw": "owner"} if password else {}  # type: ignore[attr-defined]
    with pymupdf.open() as document:
        for number in range(pages):
            document.new_page(width=100, height=100).insert_text((10, 50), f"{text} {number}")
        path.write_bytes(document.tobytes(no_new_id=True, **locked))
    return path


def image(path: Path, *, grey: int = 255, frames: int = 1) -> Path:
    path.parent.mkdir(exist_ok=True)
    first, *rest = [Image.new("L", (8, 8), grey - number) for number in range(frames)]
    first.save(path, save_all=True, append_images=rest) if frames > 1 else first.save(path)
    return path


def age(path: Path, seconds: float = OLD) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def book(*files: Path) -> Candidate:
    return Candidate("book", files, grouped=True)


class Desk:
    """Registration of documents in a separate store."""

    def __init__(self, folder: Path, *, intake: Intake, index: FolderStore) -> None:
        self.folder = folder
        self.store = FolderStore(folder / "store")
        self.intake = intake
        #: what the intake remembers, also from other tests: the process that looks into files is started once for all
        self.index = index
        self._before = set(index.list("index/sources/"))

    def register(self, what: Path | Candidate, **options: Any) -> Registered:
        candidate = Candidate(what.name, (what,)) if isinstance(what, Path) else what
        return self.registrar(**options).register(candidate)

    def registrar(self, *, profile: Profile = RAPIDOCR, retry_failed: bool = False, **terms: Any) -> Registration:
        known: dict[str, Any] = {"queue": Priority.BULK, "collection": COLLECTION, "profile_digest": profile.digest}
        return Registration(
            self.store,
            self.intake,
            profile=profile,
            terms=SubmissionOptions(**(known | terms)),
            retry_failed=retry_failed,
        )

    def manifest(self, registered: Registered) -> Manifest:
        return Manifest.from_bytes(self.store.get(keys.manifest(registered.document)))

    def waiting(self, queue: Priority = Priority.BULK) -> list[str]:
        return list(self.store.list(keys.waiting_in(queue)))

    def submissions(self) -> list[Submission]:
        return [Submission.from_bytes(self.store.get(key)) for key in self.store.list("collections/")]

    def remembered(self) -> list[str]:
        return [key for key in self.index.list("index/sources/") if key not in self._before]

    def end(
        self,
        registered: Registered,
        status: DocumentStatus,
        *reasons: Reason,
        problem: Problem | None = None,
    ) -> None:
        """Do what a fleet does when a document ends."""
        for key in self.waiting():
            self.store.delete(key)
        record = Status(
            document=registered.document,
            generation=registered.generation,
            status=status,
            total=registered.total,
            done=registered.total - len(reasons),
            failures=tuple(Failure(page=page, reason=reason, detail="") for page, reason in enumerate(reasons, 1)),
            problem=problem,
            outputs={},
        )
        self.store.create(keys.status(registered.document, registered.generation), record.to_bytes())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    return FolderStore(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def intake(index: FolderStore) -> Iterator[Intake]:
    made = Intake(Settings(), index)
    yield made
    made.close()


@pytest.fixture
def desk(tmp_path: Path, intake: Intake, index: FolderStore) -> Desk:
    return Desk(tmp_path, intake=intake, index=index)


# ---- what is written


def test_a_document_has_a_manifest_a_submission_and_a_marker(desk: Desk) -> None:
    # Given a PDF of three pages
    path = pdf(desk.folder / "letter.pdf", 3)

    # When it is registered
    registered = desk.register(path)

    # Then the manifest has all data for a worker
    manifest = desk.manifest(registered)
    assert (manifest.document, manifest.profile, manifest.profile_digest) == (
        registered.document,
        "rapidocr",
        RAPIDOCR.digest,
    )
    assert (manifest.selection, manifest.problem) == (((1, 3),), None)
    (source,) = manifest.sources
    assert (path_of(source.uri), source.kind, source.pages) == (path, Kind.PDF, 3)
    assert (source.size, source.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)

    # And the submitted name is kept
    (submission,) = desk.submissions()
    assert (submission.name, submission.document) == ("letter.pdf", registered.document)

    # And it waits for a dispatcher
    (key,) = desk.waiting()
    assert key == keys.waiting("bulk", COLLECTION, manifest.created, registered.document, 1)
    assert Marker.from_bytes(desk.store.get(key)) == Marker(
        generation=1,
        queue=Priority.BULK,
        collection=COLLECTION,
        profile="rapidocr",
        profile_digest=RAPIDOCR.digest,
        pages_per_job=1,
        pages=3,
    )
    assert registered == Registered("letter.pdf", registered.document, 1, 3, ended=False)


def test_the_source_is_neither_copied_nor_touched(desk: Desk) -> None:
    path = age(pdf(desk.folder / "letter.pdf"))
    before, data = path.stat(), path.read_bytes()

    desk.register(path)

    assert (path.stat().st_mtime_ns, path.read_bytes()) == (before.st_mtime_ns, data)
    assert not [
        stored for stored in (desk.folder / "store").rglob("*") if stored.is_file() and data in stored.read_bytes()
    ]


def test_registering_twice_is_harmless(desk: Desk) -> None:
    path = pdf(desk.folder / "letter.pdf", 3)

    first = desk.register(path)
    stored = desk.store.get(keys.manifest(first.document))
    again = desk.register(path)

    assert again == first
    assert desk.store.get(keys.manifest(first.document)) == stored
    assert len(desk.waiting()) == 1
    assert len(desk.submissions()) == 1


def test_registering_an_active_document_adds_no_marker(desk: Desk) -> None:
    # Given a document that a dispatcher took, in the second generation
    path = pdf(desk.folder / "letter.pdf")
    first = desk.register(path)
    (waiting,) = desk.waiting()
    marker = Marker.from_bytes(desk.store.get(waiting)).model_copy(update={"generation": 2})
    desk.store.put(keys.active(first.document), marker.to_bytes())
    desk.store.delete(waiting)

    # When it is registered again
    again = desk.register(path)

    # Then there is nothing more to do but to wait for it
    assert (again.document, again.generation, again.ended) == (first.document, 2, False)
    assert desk.waiting() == []


def test_the_class_of_a_document_is_that_of_its_marker(desk: Desk) -> None:
    desk.register(pdf(desk.folder / "letter.pdf"), queue=Priority.INTERACTIVE)

    assert desk.waiting() == []
    assert len(desk.waiting(Priority.INTERACTIVE)) == 1


def test_a_name_that_is_no_text_can_be_stored(desk: Desk) -> None:
    path = pdf(desk.folder / os.fsdecode(b"K\xf6ln.pdf"))

    registered = desk.register(path)

    assert registered.name == os.fsdecode(b"K\xf6ln.pdf")
    assert [submission.name for submission in desk.submissions()] == ["K\\udcf6ln.pdf"]
    assert path_of(desk.manifest(registered).sources[0].uri) == path


# ---- identity


def test_the_same_bytes_under_two_names_are_one_document(desk: Desk) -> None:
    one = pdf(desk.folder / "one.pdf")
    other = desk.folder / "other.pdf"
    other.write_bytes(one.read_bytes())

    registered = [desk.register(path) for path in (one, other)]

    # Then it is read once, and both names are kept
    assert registered[0].document == registered[1].document
    assert len(desk.waiting()) == 1
    assert sorted(submission.name for submission in desk.submissions()) == ["one.pdf", "other.pdf"]


def test_a_file_that_changed_is_another_document(desk: Desk) -> None:
    path = pdf(desk.folder / "letter.pdf", text="draft")
    first = desk.register(path)

    again = desk.register(pdf(path, text="fair copy"))

    assert again.document != first.document
    assert len(desk.waiting()) == 2


def test_other_pages_and_another_engine_are_other_documents(desk: Desk) -> None:
    path = pdf(desk.folder / "letter.pdf", 3)

    registered = [
        desk.register(path),
        desk.register(path, selection=[(2, 3)]),
        desk.register(path, profile=TESSERACT),
    ]

    assert len({item.document for item in registered}) == 3
    assert [item.total for item in registered] == [3, 2, 3]


@pytest.mark.parametrize("selection", [[(1, 3)], [(1, None)], [(1, 99)], [(2, 3), (1, 1)], [(1, 2), (2, 3)]])
def test_all_pages_are_the_same_document_for_every_spelling_of_the_range(
    desk: Desk, selection: list[tuple[int, int | None]]
) -> None:
    path = pdf(desk.folder / "letter.pdf", 3)

    assert desk.register(path, selection=selection).document == desk.register(path).document


def test_a_file_that_moved_is_found_where_it_is_now(desk: Desk) -> None:
    # Given a registered file
    path = pdf(desk.folder / "letter.pdf")
    first = desk.register(path)
    before = desk.manifest(first)

    # When it is moved and registered again
    moved = path.rename(desk.folder / "moved.pdf")
    again = desk.register(moved)

    # Then it is the same document, and workers find it
    after = desk.manifest(again)
    assert again.document == first.document
    assert path_of(after.sources[0].uri) == moved
    assert after.model_copy(update={"sources": before.sources}) == before
    assert len(desk.waiting()) == 1


def test_a_copy_does_not_move_a_document_whose_file_is_still_there(desk: Desk) -> None:
    # Given a registered file, and a copy of it that will be deleted
    path = pdf(desk.folder / "letter.pdf")
    registered = desk.register(path)
    copy = desk.folder / "copy.pdf"
    copy.write_bytes(path.read_bytes())

    desk.register(copy)

    assert path_of(desk.manifest(registered).sources[0].uri) == path


def test_a_file_that_was_touched_is_the_same_document(desk: Desk) -> None:
    path = pdf(desk.folder / "letter.pdf")
    first = desk.register(path)
    age(path)

    again = desk.register(path)

    assert again.document == first.document
    assert desk.manifest(again).sources[0].mtime_ns == path.stat().st_mtime_ns


# ---- books


def test_the_pages_of_a_book_are_those_of_its_files_in_order(desk: Desk) -> None:
    files = [image(desk.folder / "1.png"), image(desk.folder / "2.tif", frames=3), image(desk.folder / "3.png", grey=9)]

    registered = desk.register(book(*files))
    manifest = desk.manifest(registered)

    assert registered.total == 5
    assert [path_of(source.uri) for source in manifest.sources] == files
    assert manifest.locate(4) == (1, 2)


def test_another_order_is_another_book(desk: Desk) -> None:
    one, two = image(desk.folder / "1.png"), image(desk.folder / "2.png", grey=9)

    assert desk.register(book(one, two)).document != desk.register(book(two, one)).document


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\nand no more"])
def test_a_broken_image_has_its_page_in_the_book(desk: Desk, data: bytes) -> None:
    # Given a book whose second page is broken
    files = [image(desk.folder / f"{number}.png", grey=number) for number in (1, 2, 3)]
    files[1].write_bytes(data)

    # When it is registered, then page numbers do not shift, and only the broken page will fail
    registered = desk.register(book(*files))
    manifest = desk.manifest(registered)
    assert (registered.total, manifest.problem) == (3, None)
    assert [source.pages for source in manifest.sources] == [1, 1, 1]
    assert path_of(manifest.sources[1].uri) == files[1]


def test_a_broken_image_that_was_repaired_makes_another_document(desk: Desk) -> None:
    files = [image(desk.folder / f"{number}.png", grey=number) for number in (1, 2)]
    good = files[1].read_bytes()
    files[1].write_bytes(b"")
    broken = desk.register(book(*files))

    files[1].write_bytes(good)

    assert desk.register(book(*files)).document != broken.document


def test_an_image_that_vanished_has_its_page_in_the_book(desk: Desk) -> None:
    files = [image(desk.folder / "1.png"), desk.folder / "2.png"]

    assert desk.register(book(*files)).total == 2


# ---- documents that can't be taken in


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.pdf", b"", Reason.EMPTY_FILE),
        ("page.pdf", b"<html>404</html>", Reason.UNSUPPORTED),
        ("torn.pdf", b"%PDF-1.7\n", Reason.UNREADABLE),
        ("torn.png", b"\x89PNG\r\n\x1a\nand no more", Reason.UNREADABLE),
    ],
)
def test_a_file_that_can_not_be_read_has_a_problem_and_no_pages(
    desk: Desk, name: str, data: bytes, reason: Reason
) -> None:
    # When a broken file is registered
    path = desk.folder / name
    path.write_bytes(data)
    registered = desk.register(path)

    # Then it goes the way of any other, to end as failed
    manifest = desk.manifest(registered)
    assert manifest.problem is not None
    assert manifest.problem.reason is reason
    assert manifest.problem.detail
    assert (manifest.sources, manifest.selection, registered.total, registered.ended) == ((), (), 0, False)
    assert len(desk.waiting()) == 1


def test_a_locked_file_needs_a_password_and_then_is_read(desk: Desk) -> None:
    # Given an encrypted PDF without its password
    path = pdf(desk.folder / "locked.pdf", 2, password="geheim")  # noqa: S106
    refused = desk.register(path)
    problem = desk.manifest(refused).problem
    assert problem is not None
    assert problem.reason is Reason.NEEDS_PASSWORD

    # When the password is known
    (desk.folder / "passwords").write_text("wrong\ngeheim\n")
    desk.intake = Intake(Settings(password_file=desk.folder / "passwords"), desk.store)
    age(path)
    read = desk.register(path)
    # And files with other passwords follow, in any order
    others = [
        desk.register(age(pdf(desk.folder / f"{number}.pdf", number, password=password)))
        for number, password in enumerate(("wrong", "geheim"), 3)
    ]
    desk.intake.close()

    # Then each is a document like others, and no password is stored anywhere
    assert (read.total, desk.manifest(read).problem) == (2, None)
    assert [(other.total, desk.manifest(other).problem) for other in others] == [(3, None), (4, None)]
    assert read.document != refused.document
    stored = [path for path in (desk.folder / "store").rglob("*") if path.is_file()]
    assert stored
    assert not any(b"geheim" in path.read_bytes() for path in stored)


def test_a_file_that_vanished_has_a_problem(desk: Desk) -> None:
    manifest = desk.manifest(desk.register(desk.folder / "gone.pdf"))

    assert manifest.problem is not None
    assert manifest.problem.reason is Reason.UNREADABLE


def test_a_file_that_can_not_be_read_harms_no_other(desk: Desk) -> None:
    # Given a file that became a folder after it was found; a bad sector ends in the same place
    path = desk.folder / "a.pdf"
    path.mkdir()

    manifest = desk.manifest(desk.register(path))

    assert manifest.problem is not None
    assert manifest.problem.reason is Reason.UNREADABLE


def test_two_broken_files_are_two_documents(desk: Desk) -> None:
    registered = []
    for name in ("a.pdf", "b.pdf"):
        (desk.folder / name).write_bytes(b"")
        registered.append(desk.register(desk.folder / name))

    assert registered[0].document != registered[1].document


def test_pages_that_a_document_has_not_are_a_problem_of_its_own(desk: Desk) -> None:
    manifest = desk.manifest(desk.register(pdf(desk.folder / "a.pdf", 2), selection=[(5, 9)]))

    assert manifest.problem is not None
    assert manifest.problem.reason is Reason.NO_SUCH_PAGES
    assert "2 pages" in manifest.problem.detail


# ---- what has ended


def test_a_completed_document_is_not_done_again(desk: Desk) -> None:
    path = pdf(desk.folder / "a.pdf")
    first = desk.register(path)
    desk.end(first, DocumentStatus.COMPLETED)

    for retry_failed in (False, True):
        again = desk.register(path, retry_failed=retry_failed)
        assert (again.generation, again.ended, desk.waiting()) == (1, True, [])


@pytest.mark.parametrize("reason", [Reason.SOURCE_MISSING, Reason.SOURCE_CHANGED, Reason.NEEDS_PASSWORD])
def test_a_document_that_failed_for_an_external_reason_is_retried(desk: Desk, reason: Reason) -> None:
    # Given a document with pages that failed because the file was missing
    path = pdf(desk.folder / "a.pdf", 3)
    first = desk.register(path)
    desk.end(first, DocumentStatus.PARTIAL, Reason.RENDER_CRASHED, reason)

    # When a retry is requested, then its next generation waits, and is opened once
    for _ in range(2):
        again = desk.register(path)
        assert (again.document, again.generation, again.ended) == (first.document, 2, False)
    (key,) = desk.waiting()
    assert Marker.from_bytes(desk.store.get(key)).generation == 2


def test_a_document_that_failed_by_itself_is_retried_only_on_request(desk: Desk) -> None:
    # Given a document with a page that crashed the renderer
    path = pdf(desk.folder / "a.pdf", 2)
    first = desk.register(path)
    desk.end(first, DocumentStatus.PARTIAL, Reason.RENDER_CRASHED)

    # Then asking again gives what there is
    again = desk.register(path)
    assert (again.generation, again.ended, desk.waiting()) == (1, True, [])

    # And retrying opens the next generation, each time
    retried = desk.register(path, retry_failed=True)
    assert (retried.generation, retried.ended) == (2, False)
    desk.end(retried, DocumentStatus.FAILED, Reason.RENDER_CRASHED, Reason.RENDER_CRASHED)
    assert desk.register(path, retry_failed=True).generation == 3


def test_a_cancelled_document_stays_cancelled(desk: Desk) -> None:
    path = pdf(desk.folder / "a.pdf")
    desk.end(desk.register(path), DocumentStatus.CANCELLED, Reason.SOURCE_MISSING)

    assert desk.register(path, retry_failed=True).ended


def test_a_document_that_could_not_be_taken_in_is_not_tried_again_while_it_is_the_same(desk: Desk) -> None:
    path = desk.folder / "a.pdf"
    path.write_bytes(b"")
    first = desk.register(path)
    desk.end(first, DocumentStatus.FAILED, problem=desk.manifest(first).problem)

    assert desk.register(path, retry_failed=True).ended

    # But another file in its place is another document
    pdf(path)
    assert not desk.register(path).ended


def test_the_latest_status_is_that_of_the_last_generation(desk: Desk) -> None:
    path = pdf(desk.folder / "a.pdf")
    registered = desk.register(path)
    assert latest_status(desk.store, registered.document) is None

    for generation in (1, 2, 10):
        desk.end(
            Registered("a", registered.document, generation, 1, ended=False),
            DocumentStatus.FAILED,
            Reason.ENGINE_FAILED,
        )

    latest = latest_status(desk.store, registered.document)
    assert latest is not None
    assert latest.generation == 10


# ---- the source index


def test_an_old_file_that_has_not_changed_is_not_read_again(desk: Desk) -> None:
    # Given a file that was taken in when it was old
    path = age(pdf(desk.folder / "a.pdf", 2))
    first = desk.intake.source(path)
    assert len(desk.remembered()) == 1

    # When other bytes replace it with the same size and time, which can't be detected without reading them
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    # Then what it was is known without reading it
    assert desk.intake.source(path) == first


@pytest.mark.parametrize("seconds", [0, -3600], ids=["fresh", "from the future"])
def test_a_fresh_file_is_read_again(desk: Desk, seconds: float) -> None:
    # Given a file that changes within one tick of the file system's clock: its size and time stay the same
    path = age(image(desk.folder / "a.bmp", grey=9), seconds)
    facts = path.stat()
    first = desk.intake.source(path)
    assert desk.remembered() == []
    image(path, grey=200)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == facts.st_size

    # When it is registered again, then the change is detected
    second = desk.intake.source(path)
    assert (second.size, second.mtime_ns) == (first.size, first.mtime_ns)
    assert second.sha256 != first.sha256


def test_a_changed_time_or_size_means_reading(desk: Desk) -> None:
    path = age(pdf(desk.folder / "a.pdf", 1))
    desk.intake.source(path)

    age(path, OLD + 1)
    desk.intake.source(path)
    age(pdf(path, 2), OLD + 1)

    assert desk.intake.source(path).pages == 2
    assert len(desk.remembered()) == 3


@pytest.mark.parametrize("junk", [b" ", b"{", b'{"sha256": "x"}', b'{"schema_version": 1, "pages": 3}'])
def test_an_index_that_can_not_be_read_is_written_anew(desk: Desk, junk: bytes) -> None:
    path = age(pdf(desk.folder / "a.pdf"))
    first = desk.intake.source(path)
    (key,) = desk.remembered()
    good = desk.index.get(key)
    desk.index.put(key, junk)

    assert desk.intake.source(path) == first
    assert desk.index.get(key) == good


def test_an_index_entry_of_another_version_is_ignored(desk: Desk) -> None:
    path = age(pdf(desk.folder / "a.pdf"))
    desk.intake.source(path)
    (key,) = desk.remembered()
    desk.index.put(key, desk.index.get(key).replace(b'"schema_version":1', b'"schema_version":2'))

    desk.intake.source(path)

    assert b'"schema_version":1' in desk.index.get(key)


def test_without_a_store_nothing_is_written(tmp_path: Path) -> None:
    path = age(pdf(tmp_path / "a.pdf"))
    intake = Intake(Settings(), None)

    source = intake.source(path)
    intake.close()

    assert source.pages == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name", [b"a b.pdf", b"100%25.pdf", b"K\xf6ln.pdf", "Köln.pdf".encode(), b"a#b?c.pdf", b"a\nb"]
)
def test_the_uri_of_a_file_keeps_every_byte_of_its_name(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)

    uri = uri_of(path)

    assert uri.isascii()
    assert path_of(uri) == path
    assert (
        Source.model_validate({"uri": uri, "size": 1, "mtime_ns": 1, "sha256": "0" * 64, "kind": "pdf", "pages": 1}).uri
        == uri
    )


# ---- selections

ranges = st.lists(
    st.tuples(st.integers(1, 60), st.none() | st.integers(0, 20)).map(
        lambda pair: (pair[0], None if pair[1] is None else pair[0] + pair[1])
    ),
    max_size=6,
)


@given(ranges, st.integers(1, 50))
@example([(5, 6), (7, 8)], 50)
@example([(1, 10), (2, 3)], 50)
@example([(60, None)], 50)
def test_the_pages_selected_are_those_asked_for(selection: list[tuple[int, int | None]], total: int) -> None:
    # Given the pages of a document, and the requested ones
    there = range(1, total + 1)
    wanted = [
        page for page in there if not selection or any(first <= page <= (last or total) for first, last in selection)
    ]

    # When they are normalised
    if not wanted:
        with pytest.raises(PermanentError) as caught:
            select(selection, total)
        assert caught.value.reason is Reason.NO_SUCH_PAGES
        return
    selected = select(selection, total)

    # Then they are the same pages, in ranges that ascend and do not touch
    assert [page for first, last in selected for page in range(first, last + 1)] == wanted
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(selected))


@given(ranges, st.integers(1, 50), st.randoms())
def test_the_order_of_ranges_means_nothing(selection: list[tuple[int, int | None]], total: int, random: Any) -> None:
    # The id of a document has its selection in it.
    shuffled = list(selection)
    random.shuffle(shuffled)

    try:
        expected = select(selection, total)
    except PermanentError:
        with pytest.raises(PermanentError):
            select(shuffled, total)
    else:
        assert select(shuffled, total) == expected
        assert select(expected, total) == expected
