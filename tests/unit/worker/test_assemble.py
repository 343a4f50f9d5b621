from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrfleet import keys
from ocrfleet.errors import NotFoundError, Reason, TransientError
from ocrfleet.formats import FormatName
from ocrfleet.records.documents import DocumentStatus, Kind, Manifest, Marker, Problem, Source, Status
from ocrfleet.records.pages import Block, PageResult, PageStatus, Role
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import Submission, SubmissionOptions
from ocrfleet.storage.outputs import outputs_of
from ocrfleet.storage.page_records import stored_pages
from ocrfleet.storage.store import FolderStore
from worker.assemble import assemble, convert
from worker.formats.materials import Materials

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger

DOCUMENT = "0123456789abcdef" * 2


class Notes:
    """Fake ledger that records the calls of assembly; the real one is tested against a real server."""

    def __init__(self) -> None:
        self.forgotten: list[tuple[str, int]] = []
        self.seeds: list[dict[str, Any]] = []

    def forget(self, document: str, generation: int) -> None:
        self.forgotten.append((document, generation))

    def seed(self, document: str, generation: int, *, total: int, done: Iterable[int], failed: Iterable[int]) -> None:
        assert self.forgotten, "what the ledger knew before is wrong"
        facts = {"total": total, "done": sorted(done), "failed": sorted(failed)}
        self.seeds.append({"document": document, "generation": generation, **facts})


class Archive:
    """One document in a store, whose pages a test stores as workers do."""

    def __init__(self, folder: Path) -> None:
        self.store = FolderStore(folder)
        self.notes = Notes()

    def register(self, *, pages: int = 3, selection: tuple[tuple[int, int], ...] | None = None) -> None:
        source = Source(uri="file:///a.pdf", size=1, mtime_ns=1, sha256="ab" * 32, kind=Kind.PDF, pages=pages)
        self._put(sources=(source,), selection=((1, pages),) if selection is None else selection)

    def register_problem(self) -> None:
        self._put(problem=Problem(reason=Reason.EMPTY_FILE, detail="no bytes"))

    def _put(self, **facts: Any) -> None:
        manifest = Manifest(
            document=DOCUMENT, created="20261122T051000.123456Z", profile="p", profile_digest="cd" * 32, **facts
        )
        self.store.create(keys.manifest(DOCUMENT), manifest.to_bytes())
        marker = Marker(
            generation=1, queue=Priority.BULK, collection="c", profile="p", profile_digest="ab" * 32, pages_per_job=8
        )
        self.store.put(keys.active(DOCUMENT), marker.to_bytes())

    def done(self, *pages: int, blank: bool = False) -> None:
        for page in pages:
            self.store.create(keys.page_done(DOCUMENT, page), self._result(page, blank=blank).to_bytes())

    def failed(self, *pages: int, generation: int = 1) -> None:
        for page in pages:
            result = self._result(
                page, status=PageStatus.FAILED, reason=Reason.RENDER_CRASHED, detail=f"crash in {generation}"
            )
            self.store.create(keys.page_failed(DOCUMENT, page, generation), result.to_bytes())

    def store_page(self, page: int, **facts: Any) -> None:
        result = self._result(page, **facts)
        failed = result.status is PageStatus.FAILED
        key = keys.page_failed(DOCUMENT, page, 1) if failed else keys.page_done(DOCUMENT, page)
        self.store.create(key, result.to_bytes())

    def _result(
        self, page: int, *, status: PageStatus = PageStatus.DONE, blank: bool = False, **facts: Any
    ) -> PageResult:
        text = f"text of {page}" if status is PageStatus.DONE and not blank else ""
        known = {"profile": "p", "engine": "e", "model": "m", "revision": "r"}
        return PageResult(page=page, status=status, blank=blank, text=text, **known, **facts)

    def assemble(self, generation: int = 1) -> Status | None:
        return assemble(Materials(store=self.store), cast("Ledger", self.notes), DOCUMENT, generation)

    def ended(self, generation: int = 1) -> Status:
        status = self.assemble(generation)
        assert status is not None
        return status

    def output(self, status: Status, extension: str) -> str:
        return self.store.get(status.outputs[extension].key).decode()

    def objects(self) -> dict[str, bytes]:
        return {key: self.store.get(key) for key in self.store.list(f"documents/{DOCUMENT}/")}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


# ---- how documents end


def test_a_document_whose_pages_are_all_done_is_completed(archive: Archive) -> None:
    # Given three pages, one of them blank
    archive.register(pages=3)
    archive.done(1, 3)
    archive.done(2, blank=True)

    # When they are assembled
    status = archive.ended()

    # Then the status is completed, and lists outputs with the text of all pages in order
    assert (status.status, status.total, status.done, status.blank) == (DocumentStatus.COMPLETED, 3, 3, 1)
    assert (status.failures, status.problem, status.generation) == ((), None, 1)
    text = archive.output(status, "md")
    assert text.index("text of 1") < text.index("<!-- page 2 blank -->") < text.index("text of 3")
    assert [page["page"] for page in json.loads(archive.output(status, "json"))["pages"]] == [1, 2, 3]


def test_a_document_with_done_and_failed_pages_is_partial(archive: Archive) -> None:
    archive.register(pages=3)
    archive.done(1, 3)
    archive.failed(2)

    status = archive.ended()

    assert (status.status, status.total, status.done) == (DocumentStatus.PARTIAL, 3, 2)
    assert [(failure.page, failure.reason, failure.detail) for failure in status.failures] == [
        (2, Reason.RENDER_CRASHED, "crash in 1")
    ]
    assert "**Page 2 is missing:** crash in 1" in archive.output(status, "md")
    assert json.loads(archive.output(status, "json"))["status"] == "partial"


def test_a_document_whose_pages_all_failed_is_failed(archive: Archive) -> None:
    archive.register(pages=2)
    archive.failed(1, 2)

    status = archive.ended()

    assert (status.status, status.done, len(status.failures)) == (DocumentStatus.FAILED, 0, 2)
    assert archive.output(status, "md").count("is missing") == 2


def test_a_document_that_could_not_be_taken_in_is_failed_with_outputs_that_say_so(archive: Archive) -> None:
    archive.register_problem()

    status = archive.ended()

    assert (status.status, status.total, status.failures) == (DocumentStatus.FAILED, 0, ())
    assert status.problem is not None
    assert status.problem.reason is Reason.EMPTY_FILE
    assert "no bytes" in archive.output(status, "md")
    assert json.loads(archive.output(status, "json"))["problem"]["reason"] == "empty_file"


def test_only_the_pages_that_were_asked_for_count(archive: Archive) -> None:
    # Given a document with some requested pages, and a record of another page
    archive.register(pages=9, selection=((2, 3), (7, 7)))
    archive.done(2, 3, 5, 7)

    status = archive.ended()

    assert (status.status, status.total, status.done) == (DocumentStatus.COMPLETED, 3, 3)
    assert [page["page"] for page in json.loads(archive.output(status, "json"))["pages"]] == [2, 3, 7]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["done", "blank", "failed"]), min_size=1, max_size=6))
def test_every_page_ends_accounted_for(tmp_path_factory: pytest.TempPathFactory, ends: list[str]) -> None:
    # Given pages that ended in any way
    archive = Archive(tmp_path_factory.mktemp("store"))
    archive.register(pages=len(ends))
    for page, end in enumerate(ends, 1):
        archive.failed(page) if end == "failed" else archive.done(page, blank=end == "blank")

    # When they are assembled
    status = archive.ended()

    # Then each is done or has a reason, and is in its place in every output
    failed = [page for page, end in enumerate(ends, 1) if end == "failed"]
    assert [failure.page for failure in status.failures] == failed
    assert status.done + len(status.failures) == status.total == len(ends)
    assert status.blank == ends.count("blank")
    markers = [line.split()[2] for line in archive.output(status, "md").splitlines() if line.startswith("<!-- page")]
    assert markers == [str(page) for page in range(1, len(ends) + 1)]
    assert len(json.loads(archive.output(status, "json"))["pages"]) == len(ends)


# ---- a page without a record


def test_a_page_without_a_record_is_never_papered_over(archive: Archive) -> None:
    # Given a document that a ledger wrongly reported as complete
    archive.register(pages=4)
    archive.done(1)
    archive.failed(3)

    # When it is to be assembled
    status = archive.assemble()

    # Then there is neither a status nor an output, and it is still active
    assert status is None
    assert not archive.store.exists(keys.status(DOCUMENT, 1))
    assert not any("/out/" in key for key in archive.objects())
    assert archive.store.exists(keys.active(DOCUMENT))

    # And the ledger starts anew from what there is, so that the rest is published again
    assert archive.notes.seeds == [
        {"document": DOCUMENT, "generation": 1, "total": 4, "done": [1], "failed": [3]},
    ]


def test_it_ends_as_soon_as_the_page_has_a_record(archive: Archive) -> None:
    archive.register(pages=2)
    archive.done(1)
    assert archive.assemble() is None

    archive.done(2)

    assert archive.ended().status is DocumentStatus.COMPLETED


def test_a_document_that_is_gone_is_no_document(archive: Archive) -> None:
    with pytest.raises(NotFoundError):
        archive.assemble()


# ---- done, failed, and generations


def test_done_beats_failed(archive: Archive) -> None:
    # Given a page that failed in one worker's hands and was done in another's
    archive.register(pages=2)
    archive.failed(1, 2)
    archive.done(1, 2)

    status = archive.ended()

    assert (status.status, status.failures) == (DocumentStatus.COMPLETED, ())


def test_a_failure_of_another_generation_does_not_count(archive: Archive) -> None:
    # Given a page that failed in the first generation, and nothing of it in the second
    archive.register(pages=2)
    archive.done(1)
    archive.failed(2, generation=1)

    # Then the second can't end with it
    assert archive.assemble(2) is None

    # And when it fails there too, then that result counts
    archive.failed(2, generation=2)
    status = archive.ended(2)
    assert [failure.detail for failure in status.failures] == ["crash in 2"]


def test_a_retry_leaves_the_outputs_of_before(archive: Archive) -> None:
    # Given a document that ended as partial
    archive.register(pages=2)
    archive.done(1)
    archive.failed(2)
    first = archive.ended(1)
    before = archive.objects()

    # When its failed page is done in the next generation
    archive.done(2)
    second = archive.ended(2)

    # Then it is completed, and a reader of the first status still finds its outputs as they were
    assert (first.status, second.status) == (DocumentStatus.PARTIAL, DocumentStatus.COMPLETED)
    assert before.items() <= archive.objects().items()
    assert archive.ended(1) == first


# ---- once and for all


def test_assembling_twice_gives_the_same_status(archive: Archive) -> None:
    archive.register(pages=3)
    archive.done(1, 2)
    archive.failed(3)

    first = archive.ended()
    before = archive.objects()
    again = archive.ended()

    assert again == first
    assert archive.objects() == before


def test_late_results_change_no_output(archive: Archive) -> None:
    # Given a document that has ended as partial
    archive.register(pages=2)
    archive.done(1)
    archive.failed(2)
    first = archive.ended()

    # When a worker that was stopped for a while stores its page, and publishes the assembly job
    archive.done(2)

    # Then the outputs that readers may have read are unchanged
    assert archive.ended() == first


def test_the_same_pages_give_the_same_bytes_in_another_store(tmp_path: Path) -> None:
    statuses = []
    for name in ("one", "other"):
        archive = Archive(tmp_path / name)
        archive.register(pages=3)
        archive.done(*((3, 1) if name == "one" else (1, 3)))
        archive.failed(2)
        statuses.append(archive.ended())

    assert statuses[0].to_bytes() == statuses[1].to_bytes()


def test_two_that_assemble_at_once_agree(tmp_path: Path) -> None:
    for attempt in range(10):
        # Given a complete document, and two workers with an assembly job
        archive = Archive(tmp_path / str(attempt))
        archive.register(pages=5)
        archive.done(1, 2, 3, 4)
        archive.failed(5)
        barrier = threading.Barrier(2)

        def work(archive: Archive = archive, barrier: threading.Barrier = barrier) -> Status | None:
            barrier.wait()
            return archive.assemble()

        # When both assemble it
        with ThreadPoolExecutor(2) as threads:
            one, other = [future.result() for future in [threads.submit(work) for _ in range(2)]]

        # Then there is one status and one output of each format
        assert one is not None
        assert one == other
        assert one.to_bytes() == archive.store.get(keys.status(DOCUMENT, 1))
        assert sum("/out/" in key for key in archive.objects()) == len(one.outputs)


# ---- outputs and status


def test_a_status_names_its_outputs_with_their_hashes(archive: Archive) -> None:
    archive.register(pages=2)
    archive.done(1, 2)

    status = archive.ended()

    assert set(status.outputs) == {"md", "json"}
    for output in status.outputs.values():
        data = archive.store.get(output.key)
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (output.sha256, output.size)


def test_the_marker_is_the_dispatchers_business(archive: Archive) -> None:
    # Given a document whose next generation is open while the assembly of the last one comes late
    archive.register(pages=1)
    archive.done(1)
    archive.store.put(keys.active(DOCUMENT), b"that of generation 2")

    # When it is assembled, twice
    assert archive.ended() == archive.ended()

    # Then its ledger is gone, and the marker is as it was
    assert archive.notes.forgotten == [(DOCUMENT, 1)] * 2
    assert archive.store.get(keys.active(DOCUMENT)) == b"that of generation 2"


class FullDisk(FolderStore):
    """A store that has no room for more than a number of new outputs."""

    room = 0

    def create_from(self, key: str, path: Path) -> bool:
        if self.room == 0:
            raise TransientError("the store can't be written: No space left on device")
        self.room -= 1
        return super().create_from(key, path)


@pytest.mark.parametrize("room", [0, 1])
def test_a_status_exists_only_after_its_outputs(archive: Archive, tmp_path: Path, room: int) -> None:
    # Given a disk that is full before all outputs are written
    archive.register(pages=1)
    archive.done(1)
    archive.store = store = FullDisk(tmp_path)
    store.room = room

    # When the document is assembled
    with pytest.raises(TransientError):
        archive.assemble()

    # Then it has not ended
    assert not store.exists(keys.status(DOCUMENT, 1))
    assert store.exists(keys.active(DOCUMENT))
    assert archive.notes.forgotten == []

    # And when there is room, it does
    store.room = 2
    assert archive.ended().status is DocumentStatus.COMPLETED


def test_a_status_counts_pictures_and_pages_that_had_their_text_already(archive: Archive) -> None:
    # Given a page with two pictures, one with a text layer, one that failed and has a picture of its text
    archive.register(pages=3)
    figure = Block(label="image", role=Role.FIGURE, figure="000001-01-0123456789ab.jpg")
    text = Block(label="text", role=Role.TEXT, markdown="words")
    archive.store_page(1, blocks=(figure, text, figure), markdown=True)
    archive.store_page(2, text_layer=True)
    archive.store_page(
        3, status=PageStatus.FAILED, reason=Reason.TRUNCATED, detail="cut off", blocks=(figure, text), markdown=True
    )

    status = archive.ended()

    assert (status.done, status.text_layer, status.figures) == (2, 1, 3)
    assert archive.output(status, "md").count("![Figure](figures/") == 3
    assert [failure.reason for failure in status.failures] == [Reason.TRUNCATED]


# ---- listings


def test_a_range_of_pages_is_listed_without_its_neighbours(archive: Archive) -> None:
    # Given pages around a range, and failures of two generations in it
    archive.register(pages=20)
    archive.done(4, 5, 9, 10, 11)
    archive.failed(4, 6, 9, 12, generation=2)
    archive.failed(7, generation=1)

    stored = stored_pages(archive.store, DOCUMENT, 2, first=5, last=10)

    assert (stored.done, stored.failed, stored.terminal) == ({5, 9, 10}, {6}, {5, 6, 9, 10})


# ---- further formats


def submitted(archive: Archive, *formats: str, name: str = "a.pdf") -> None:
    options = SubmissionOptions(profile_digest="cd" * 32, queue=Priority.BULK, collection="c", formats=formats)
    submission = Submission(
        name=name, document=DOCUMENT, uri="file:///a.pdf", submitted="20261122T051000.123456Z", terms=options
    )
    archive.store.put(keys.wanted(DOCUMENT, submission.digest), submission.to_bytes())


def test_formats_that_submissions_ask_for_are_written_beside_the_default_ones(archive: Archive) -> None:
    # Given two submissions with formats of their own, one of them of a version that is still to come
    archive.register(pages=2)
    archive.done(1, 2)
    submitted(archive, "txt")
    submitted(archive, "html", "hologram", name="b.pdf")

    # When the document is assembled
    status = archive.ended()

    # Then all of its formats are there, and the usual ones are what they would be without
    assert list(status.outputs) == ["md", "json", "txt", "html"]
    assert archive.output(status, "txt") == "text of 1\n\ftext of 2\n"
    assert status.outputs["txt"].key.endswith(".txt")
    assert status.refused is None


def test_a_status_without_further_formats_is_stored_as_it_always_was(archive: Archive) -> None:
    archive.register(pages=1)
    archive.done(1)
    submitted(archive)

    archive.ended()

    assert b"refused" not in archive.store.get(keys.status(DOCUMENT, 1))


def test_a_format_that_cannot_be_written_leaves_the_others_alone(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a document without pages, which IIIF can't express, and a writer with a mistake
    archive.register_problem()
    submitted(archive, "iiif", "html", "txt")
    monkeypatch.setattr("worker.formats.web_page.HtmlWriter.end", lambda _: 1 / 0)

    status = archive.ended()

    assert status.refused is not None
    assert set(status.refused) == {"iiif", "html"}
    assert "no bytes" in status.refused["iiif"]
    assert "ZeroDivisionError" in status.refused["html"]
    assert set(status.outputs) == {"md", "json", "txt"}


def test_a_document_is_converted_later_to_the_bytes_that_assembly_would_have_written(tmp_path: Path) -> None:
    # Given the same pages twice: one document with text requested before its end, one afterwards
    early, late = Archive(tmp_path / "early"), Archive(tmp_path / "late")
    for archive in (early, late):
        archive.register(pages=3)
        archive.done(1, 3)
        archive.failed(2)
    submitted(early, "txt", "docx")
    known, status = early.ended(), late.ended()

    # When the second one is converted, twice
    outputs = [
        convert(Materials(store=late.store), DOCUMENT, 1, [FormatName.TEXT, FormatName.DOCX, FormatName.JSON])
        for _ in range(2)
    ]

    # Then the outputs are the same, its status is as it was, and readers find them
    assert outputs[0].made == outputs[1].made
    assert outputs[0].made["txt"] == known.outputs["txt"]
    assert outputs[0].made["docx"] == known.outputs["docx"]
    assert outputs[0].made["json"] == status.outputs["json"]
    assert Status.from_bytes(late.store.get(keys.status(DOCUMENT, 1))) == status
    found = outputs_of(late.store, status, ["md", "txt", "docx", "html"])
    assert set(found.made) == {"md", "txt", "docx"}
    assert found.missing(["txt", "html"]) == ("html",)


def test_a_document_whose_pages_were_purged_cannot_be_converted(archive: Archive) -> None:
    archive.register(pages=1)
    archive.done(1)
    archive.ended()
    archive.store.delete(keys.page_done(DOCUMENT, 1))

    with pytest.raises(NotFoundError, match="1 of its page records were removed"):
        convert(Materials(store=archive.store), DOCUMENT, 1, [FormatName.TEXT])


def test_a_refused_format_is_tried_again_when_somebody_asks(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.register(pages=1)
    archive.done(1)
    with monkeypatch.context() as broken:
        broken.setattr("worker.formats.plain_text.TextWriter.end", lambda _: 1 / 0)
        status = archive.ended()
        assert set(convert(Materials(store=archive.store), DOCUMENT, 1, [FormatName.TEXT]).refused) == {"txt"}
    assert set(outputs_of(archive.store, status, ["txt"]).refused) == {"txt"}

    assert set(convert(Materials(store=archive.store), DOCUMENT, 1, [FormatName.TEXT]).made) == {"txt"}

    assert outputs_of(archive.store, status, ["txt"]).refused == {}
