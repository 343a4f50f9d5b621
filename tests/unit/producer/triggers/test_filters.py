"""Filters: which objects are submitted, and where results may be delivered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.errors import UsageError
from producer.intake.discover import SUFFIXES
from producer.triggers.filters import Allowed, Filter, Prefix, check_results

INBOX = Prefix.parse("s3://archive/inbox/")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_document_is_wanted_whatever_the_case_of_its_suffix(suffix: str) -> None:
    assert Filter().wants("archive", f"a{suffix}")
    assert Filter().wants("archive", f"a{suffix.upper()}")


@pytest.mark.parametrize("key", ["a.md", "a.json", "a.txt", "pdf", "a.pdf/", "folder/", "a.pdf.md"])
def test_keys_of_unsupported_formats_are_filtered_out(key: str) -> None:
    assert not Filter().wants("archive", key)


def test_prefixes_suffixes_and_exclusions_each_decide() -> None:
    wanted = Filter(prefixes=("1890s/", "1900s/"), suffixes=(".TIF",), exclude=("1890s/drafts/",))

    assert wanted.wants("archive", "1890s/a.tif")
    assert wanted.wants("archive", "1900s/a.TIF")
    assert not wanted.wants("archive", "1910s/a.tif")
    assert not wanted.wants("archive", "1890s/a.pdf")
    assert not wanted.wants("archive", "1890s/drafts/a.tif")


def test_own_outputs_are_filtered_out() -> None:
    # A searchable PDF among the results is a PDF, a figure in the store is a PNG.
    wanted = Filter(ours=(Prefix.parse_folder("s3://archive/results"), Prefix.parse_folder("s3://archive/store/")))

    assert not wanted.wants("archive", "results/inbox/a.pdf.pdf")
    assert not wanted.wants("archive", "store/documents/00/figures/1.png")
    assert wanted.wants("archive", "results-of-1890.pdf")
    assert wanted.wants("other", "results/a.pdf")


@pytest.mark.parametrize(
    ("results", "wanted"),
    [
        (None, Filter()),
        ("s3://other/inbox/", Filter()),
        ("s3://archive/out/", Filter()),
        ("s3://archive/inbox-out/", Filter()),
        ("s3://archive/inbox/out/", Filter(exclude=("inbox/out/",))),
        ("s3://archive/inbox/out/", Filter(exclude=("inbox/o",))),
        ("s3://archive/inbox/out", Filter(exclude=("inbox/out/",))),
        ("s3://archive/inbox/out/", Filter(prefixes=("inbox/1890/", "inbox/1900/"))),
    ],
)
def test_results_outside_of_the_watched_prefix_are_allowed(results: str | None, wanted: Filter) -> None:
    check_results(INBOX, results, wanted)


@pytest.mark.parametrize(
    ("results", "wanted"),
    [
        ("s3://archive/inbox/", Filter()),
        ("s3://archive/inbox", Filter()),
        ("s3://archive/inbox/out/", Filter()),
        ("s3://archive/inbox/out/", Filter(suffixes=(".tif",))),
        ("s3://archive/inbox/out/", Filter(exclude=("inbox/out/deeper/",))),
        ("s3://archive/inbox/out/", Filter(prefixes=("inbox/",))),
        # Delivered as <results>inbox/a.pdf.md: inside again.
        ("s3://archive/", Filter()),
        ("s3://archive", Filter()),
    ],
)
def test_results_inside_the_watched_prefix_are_refused(results: str, wanted: Filter) -> None:
    with pytest.raises(UsageError, match="choose another bucket or prefix"):
        check_results(INBOX, results, wanted)


def test_the_refusal_suggests_an_exclusion() -> None:
    with pytest.raises(UsageError, match="--exclude inbox/out/") as caught:
        check_results(INBOX, "s3://archive/inbox/out", Filter())

    assert "s3://archive/inbox/out/" in str(caught.value)
    check_results(INBOX, "s3://archive/inbox/out", Filter(exclude=("inbox/out/",)))


def test_no_filter_separates_results_from_the_very_prefix_that_is_watched() -> None:
    with pytest.raises(UsageError) as caught:
        check_results(INBOX, "s3://archive/inbox/", Filter())

    assert "--exclude" not in str(caught.value)


@pytest.mark.parametrize("place", ["inbox", "/srv/x", "s3://", "s3:///x", "http://b/x"])
def test_an_invalid_s3_location_is_refused(place: str) -> None:
    for take in (Prefix.parse, Prefix.parse_folder, lambda text: Allowed([text])):
        with pytest.raises(UsageError, match="must be s3://"):
            take(place)


def test_an_allowed_prefix_is_a_folder() -> None:
    allowed = Allowed(["s3://bucket/inbox/", "s3://bucket/in", "s3://whole"])

    assert allowed.allows("bucket", "inbox/a.pdf")
    assert allowed.allows("bucket", "in/a.pdf")
    assert allowed.allows("whole", "anything")
    assert not allowed.allows("bucket", "inner/x")
    assert not allowed.allows("bucket", "in")
    assert not allowed.allows("bucket", "other/inbox/a.pdf")
    assert not allowed.allows("other", "inbox/a.pdf")
    assert not allowed.allows("whole2", "anything")


def test_without_allowed_prefixes_no_source_is_allowed() -> None:
    assert not Allowed([]).allows("bucket", "inbox/a.pdf")


@settings(deadline=None)
@given(
    watched=st.text(alphabet="ab/", max_size=5),
    results=st.text(alphabet="ab/", max_size=5),
    exclude=st.lists(st.text(alphabet="ab/", min_size=1, max_size=4), max_size=2),
    name=st.text(alphabet="ab/", max_size=5),
)
def test_no_result_of_an_allowed_pair_is_ever_read_again(
    watched: str, results: str, exclude: list[str], name: str
) -> None:
    wanted = Filter(exclude=tuple(exclude))
    try:
        check_results(Prefix("bucket", watched), f"s3://bucket/{results}", wanted)
    except UsageError:
        return
    written = Prefix.parse_folder(f"s3://bucket/{results}").prefix + name + ".pdf"

    assert not (written.startswith(watched) and wanted.wants("bucket", written))


def test_a_key_with_dot_segments_is_not_wanted() -> None:
    wanted = Filter(prefixes=("in/",))
    assert wanted.wants("bucket", "in/a.pdf")
    assert not any(wanted.wants("bucket", key) for key in ("in/../other/a.pdf", "in/./a.pdf", "in/.."))
