from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, PermanentError, Reason
from ocrfleet.markdown.style import AS_STORED, Style, Tables
from ocrfleet.records.base import Record, digest_of
from ocrfleet.records.documents import DocumentKey, Kind, Manifest, Marker, Problem, Source, Status
from ocrfleet.records.messages import IntakeJob, PageJob, Routed
from ocrfleet.records.pages import Line, PageResult, PageStatus, RetryState
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeBatch, Submission, SubmissionOptions

EXAMPLES = Path(__file__).parent / "examples"
#: Stored examples. Do not regenerate them: existing archives contain such bytes.
RECORDS: dict[str, type[Record]] = {
    "manifest.json": Manifest,
    "page-done.json": PageResult,
    "page-failed.json": PageResult,
    "status.json": Status,
    "marker.json": Marker,
    "submission-2.json": Submission,
    "arrival.json": IntakeBatch,
    "intake-job.json": IntakeJob,
    "page-job.json": PageJob,
    "retry-state.json": RetryState,
}

DIGEST = "ab" * 32
texts = st.text(st.characters(exclude_categories=["Cs"]))
#: parts of a digest, also the halves of characters that undecodable file names become
parts = st.lists(
    st.text(
        st.one_of(st.characters(exclude_categories=["Cs"]), st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)),
        max_size=4,
    ),
    max_size=4,
)


def source(pages: int = 1, *, uri: str = "file:///scans/a.pdf", sha256: str = DIGEST) -> Source:
    return Source(uri=uri, size=10, mtime_ns=5, sha256=sha256, kind=Kind.PDF, pages=pages)


def manifest(*sources: Source, selection: tuple[tuple[int, int], ...] = ((1, 1),)) -> Manifest:
    return Manifest(
        document="0" * 32,
        created="20261122T051000.123456Z",
        profile="p",
        profile_digest=DIGEST,
        sources=sources,
        selection=selection,
    )


def document_id(**changes: Any) -> str:
    asked: dict[str, Any] = {
        "sources": ["aa" * 32, "bb" * 32],
        "selection": [(1, 3), (7, 9)],
        "profile_digest": "cc" * 32,
    }
    return DocumentKey.of(**(asked | changes))


# ---- identity


def test_the_id_of_a_document_is_stable_across_versions() -> None:
    # A change here makes every archive obsolete: its documents would be read again under other ids.
    assert document_id() == "aa7b2e2ee6c0d0383d5e439a18b488e5"


def test_an_id_can_stand_in_every_key() -> None:
    assert Manifest.model_validate(manifest().model_dump() | {"document": document_id()}).document == document_id()


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": ["aa" * 32, "bc" * 32]},
        {"sources": ["bb" * 32, "aa" * 32]},
        {"sources": ["aa" * 32]},
        {"sources": ["aa" * 32 + "bb" * 32]},
        {"selection": [(1, 3), (7, 10)]},
        {"selection": [(1, 3)]},
        {"profile_digest": "cd" * 32},
        {"problem": Problem(reason=Reason.UNREADABLE, detail="damaged")},
    ],
    ids=["bytes", "order", "fewer pages", "joined", "selection", "shorter selection", "profile", "problem"],
)
def test_the_id_changes_with_every_input_of_the_text(changes: dict[str, Any]) -> None:
    assert document_id(**changes) != document_id()


def test_two_problems_of_the_same_file_are_two_documents() -> None:
    # Given a file that needed a password, and then was damaged
    problems = [
        Problem(reason=Reason.NEEDS_PASSWORD, detail="locked"),
        Problem(reason=Reason.UNREADABLE, detail="locked"),
        Problem(reason=Reason.UNREADABLE, detail="damaged"),
    ]

    # Then no later problem hides behind an earlier one's status
    assert len({document_id(problem=problem) for problem in problems}) == 3


@given(parts, parts)
@example(["ab", "c"], ["a", "bc"])
@example(["ab"], ["a", "b"])
@example([], [""])
@example(["a", ""], ["", "a"])
@example(["\x00"], ["\x00\x00"])
def test_different_parts_have_different_digests(one: list[str], other: list[str]) -> None:
    assert (digest_of(*one) == digest_of(*other)) == (one == other)


# ---- page jobs

MESSAGE: dict[str, Any] = {
    "schema_version": 1,
    "document": "0" * 32,
    "generation": 1,
    "queue": "bulk",
    "first": 3,
    "last": 5,
}


def test_a_message_is_a_page_job() -> None:
    job = PageJob.from_message(MESSAGE)

    assert (job.first, job.last, job.queue) == (3, 5, Priority.BULK)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (MESSAGE | {"priority": 9}, "priority"),
        (MESSAGE | {"schema_version": 2}, "schema_version"),
        (MESSAGE | {"first": 6}, "last page comes before its first"),
        (MESSAGE | {"first": 0}, "first"),
        (MESSAGE | {"last": 10**12}, "1000 pages at most"),
        (MESSAGE | {"first": 10**12, "last": 10**12}, "1000 pages at most"),
        (MESSAGE | {"generation": 0}, "generation"),
        (MESSAGE | {"document": "../../../etc/passwd"}, "document"),
        (MESSAGE | {"document": "0" * 33}, "document"),
        (MESSAGE | {"queue": "express"}, "queue"),
        ({key: value for key, value in MESSAGE.items() if key != "last"}, "last"),
        ("", "schema 1"),
        (None, "schema 1"),
        ([], "schema 1"),
    ],
)
def test_a_message_that_is_no_job_of_this_version_is_refused(message: object, said: str) -> None:
    with pytest.raises(PermanentError, match=said) as caught:
        PageJob.from_message(message)
    assert caught.value.reason is Reason.INTERNAL_ERROR


#: What 0.1 sent for a single attempt by another profile, with all of its fields.
CLIMBING: dict[str, Any] = {
    "profile": "rapidocr",
    "profile_digest": DIGEST,
    "scripts": ["LATIN"],
    "rung": 4,
    "max_tokens": None,
    "deadline": 120.0,
}


@pytest.mark.parametrize("routed", [None, {"profile": "a", "profile_digest": "cd" * 32, "scripts": []}])
def test_a_page_job_for_one_attempt_elsewhere_is_read_as_a_route(routed: object) -> None:
    job = PageJob.from_message(MESSAGE | {"routed": routed, "climbing": CLIMBING})

    assert job.routed == Routed(
        profile="rapidocr", profile_digest=DIGEST, scripts=("LATIN",), rung=4, deadline=120.0, sent_on=None
    )


@pytest.mark.parametrize("routed", [None, {"profile": "a", "profile_digest": "cd" * 32, "scripts": ["GREEK"]}])
def test_a_page_job_without_routes_is_read_unchanged(routed: Any) -> None:
    job = PageJob.from_message(MESSAGE | {"routed": routed, "climbing": None})

    assert job.routed == (None if routed is None else Routed.model_validate(routed))
    # And a routed job has no field that the previous version does not have
    assert job.model_dump(mode="json", exclude_none=True) == MESSAGE | ({} if routed is None else {"routed": routed})


@pytest.mark.parametrize("climbing", ["rapidocr", {"profile": "rapidocr"}, CLIMBING | {"rung": 0}])
def test_a_page_job_with_a_damaged_field_of_the_version_before_is_refused(climbing: object) -> None:
    with pytest.raises(PermanentError, match="routed"):
        PageJob.from_message(MESSAGE | {"climbing": climbing})


def test_the_refusal_does_not_repeat_the_messages_content() -> None:
    with pytest.raises(PermanentError) as caught:
        PageJob.from_message(MESSAGE | {"queue": "hunter2"})
    assert "hunter2" not in str(caught.value)


# ---- manifests


def test_locate_runs_through_all_sources() -> None:
    # Given a document of three sources
    document = manifest(source(2), source(1), source(3))

    # When each page is located, then the numbers run on from source to source
    assert [document.locate(page) for page in range(1, 7)] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize("page", [7, 1000])
def test_locate_beyond_the_end_names_the_page(page: int) -> None:
    with pytest.raises(PermanentError, match=f"page {page} ") as caught:
        manifest(source(2), source(4)).locate(page)
    assert caught.value.reason is Reason.NO_SUCH_PAGES


def test_locate_in_a_document_that_could_not_be_taken_in() -> None:
    with pytest.raises(PermanentError):
        manifest(selection=()).locate(1)


def test_pages_and_total_are_those_of_the_selection() -> None:
    document = manifest(source(20), selection=((2, 4), (9, 9), (15, 16)))

    assert list(document.pages()) == [2, 3, 4, 9, 15, 16]
    assert document.total == 6


def test_a_document_without_a_selection_has_no_pages() -> None:
    assert (manifest(selection=()).total, list(manifest(selection=()).pages())) == (0, [])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_every_page_is_in_exactly_one_place(counts: list[int]) -> None:
    document = manifest(*(source(count) for count in counts), selection=((1, sum(counts)),))

    places = [document.locate(page) for page in document.pages()]

    assert places == [(number, inner) for number, count in enumerate(counts) for inner in range(count)]


# ---- records as bytes

results = st.builds(
    PageResult,
    page=st.integers(1, 999_999),
    status=st.sampled_from(PageStatus),
    reason=st.none() | st.sampled_from(Reason),
    detail=st.none() | texts,
    blank=st.booleans(),
    profile=texts,
    engine=texts,
    engine_version=st.none() | texts,
    model=texts,
    revision=texts,
    width_px=st.none() | st.integers(1, 30_000),
    height_pt=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    tokens=st.none() | st.integers(0),
    text=texts,
    lines=st.lists(
        st.builds(
            Line,
            text=texts,
            box=st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 4),
            confidence=st.none() | st.floats(0, 1),
        ),
        max_size=3,
    ).map(tuple),
)


@given(results)
def test_a_stored_result_is_read_unchanged(result: PageResult) -> None:
    # When a result is stored and read
    data = result.to_bytes()
    again = PageResult.from_bytes(data)

    # Then it is the same, on one line, and gives the same bytes
    assert again == result
    assert again.to_bytes() == data
    assert b"\n" not in data


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused_before_it_is_stored(number: float) -> None:
    # Given an engine that answers nonsense, then it is refused at once: assembly reads every page's record
    with pytest.raises(ValidationError, match="confidence"):
        Line(text="x", box=(0, 0, 1, 1), confidence=number)
    with pytest.raises(ValidationError, match="box"):
        Line(text="x", box=(0, 0, 1, number))


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        manifest().profile = "other"  # type: ignore[misc]


# ---- what schema 1 wrote


@pytest.mark.parametrize("name", RECORDS)
def test_a_stored_example_is_read(name: str) -> None:
    # Given bytes that an earlier version wrote
    data = (EXAMPLES / name).read_bytes().strip()

    # When they are read
    record = RECORDS[name].from_bytes(data)

    # Then no field is lost, and newer fields have their defaults
    written = record.to_bytes()
    assert RECORDS[name].from_bytes(written) == record
    assert kept(json.loads(data), json.loads(written))


def kept(before: Any, after: Any) -> bool:
    """Say whether all of a JSON value is still there; a block's Markdown was called its text once."""
    if isinstance(before, dict):
        renamed = {"text": "markdown"} if "boxes" in before else {}
        return all(kept(value, after[renamed.get(name, name)]) for name, value in before.items())
    if isinstance(before, list):
        return len(before) == len(after) and all(map(kept, before, after))
    return bool(before == after)


def test_every_example_is_read_by_some_test() -> None:
    assert {path.name for path in EXAMPLES.glob("*.json")} == set(RECORDS)


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("change", [{"schema_version": 3}, {"colour": "red"}], ids=["newer version", "unknown field"])
def test_a_record_of_a_newer_version_is_refused(name: str, change: dict[str, Any]) -> None:
    stored = json.loads((EXAMPLES / name).read_bytes())

    with pytest.raises(DamagedRecordError, match=next(iter(change))):
        RECORDS[name].from_bytes(json.dumps(stored | change).encode())


def test_the_example_of_a_done_page_is_parsed() -> None:
    result = PageResult.from_bytes((EXAMPLES / "page-done.json").read_bytes())

    assert (result.status, result.page, result.reason) == (PageStatus.DONE, 4, None)
    assert result.lines[0].box == (12.5, 20.0, 300.0, 44.0)
    assert result.text.split("\n\n") == ["Première ligne\nzweite Zeile", "第三"]


def test_the_example_of_a_manifest_is_parsed() -> None:
    document = Manifest.from_bytes((EXAMPLES / "manifest.json").read_bytes())

    assert (document.total, document.locate(7)) == (5, (1, 3))
    assert keys.manifest(document.document).startswith("documents/")


@given(st.integers(1, 999_999), st.none() | st.integers(1, 99_999))
def test_the_key_of_a_page_record_contains_the_page_number(page: int, generation: int | None) -> None:
    key = keys.page_done("d", page) if generation is None else keys.page_failed("d", page, generation)

    assert keys.parse_page(key) == (page, generation)


@pytest.mark.parametrize(
    "key", ["documents/d/pages/1.json", "documents/d/pages/000001.txt", "documents/d/manifest.json"]
)
def test_a_key_that_is_no_page_record_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not the key of a page record"):
        keys.parse_page(key)


def test_options_of_style_change_no_record_that_does_not_choose_one() -> None:
    # Given options as a version without styles wrote them
    known = {"profile_digest": "0" * 64, "queue": "bulk", "collection": "c"}
    stored = json.dumps({**known, "selection": [], "formats": []}, separators=(",", ":")).encode()

    # Then they are read, and written again as the same bytes, also where the default is named
    assert SubmissionOptions.from_bytes(stored).to_bytes() == stored
    named = SubmissionOptions.model_validate({**known, "tables": "html", "join_hyphens": False})
    assert named.to_bytes() == stored
    assert named.style == AS_STORED
    # And a style that was chosen is kept
    chosen = SubmissionOptions.model_validate({**known, "tables": "markdown", "join_hyphens": True})
    assert SubmissionOptions.from_bytes(chosen.to_bytes()).style == Style(tables=Tables.MARKDOWN, join_hyphens=True)
