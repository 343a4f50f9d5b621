from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrfleet.broker.celery_app import ranges

page_sets = st.sets(st.integers(1, 200), max_size=60).map(sorted)
sizes = st.integers(1, 20)


@pytest.mark.parametrize(
    ("pages", "size", "expected"),
    [
        ([], 8, []),
        ([5], 8, [(5, 5)]),
        (range(1, 9), 8, [(1, 8)]),
        (range(1, 10), 8, [(1, 8), (9, 9)]),
        ([1, 2, 4, 5, 6, 9], 8, [(1, 2), (4, 6), (9, 9)]),
        (range(1, 6), 2, [(1, 2), (3, 4), (5, 5)]),
        ([3, 4, 5], 1, [(3, 3), (4, 4), (5, 5)]),
    ],
)
def test_neighbours_travel_together(pages: list[int], size: int, expected: list[tuple[int, int]]) -> None:
    assert list(ranges(pages, size)) == expected


@given(page_sets, sizes)
def test_every_page_is_in_one_range_and_no_other_page_is(pages: list[int], size: int) -> None:
    assert [page for first, last in ranges(pages, size) for page in range(first, last + 1)] == pages


@given(page_sets, sizes)
def test_no_range_is_longer_than_asked_for(pages: list[int], size: int) -> None:
    assert all(0 <= last - first < size for first, last in ranges(pages, size))


@given(page_sets, sizes)
def test_there_are_no_more_ranges_than_needed(pages: list[int], size: int) -> None:
    # Two ranges that touch are apart only because the first one is full.
    found = list(ranges(pages, size))

    for (first, last), (begins, _) in itertools.pairwise(found):
        assert begins > last + 1 or last - first + 1 == size


def test_ranges_reads_no_further_than_it_must() -> None:
    # Given pages of which only some are requested
    read: list[int] = []

    def pages() -> Iterator[int]:
        for page in range(1, 1_000_001):
            read.append(page)
            yield page

    # When the first range is taken, then a million pages were not
    assert next(ranges(pages(), 8)) == (1, 8)
    assert len(read) == 9
