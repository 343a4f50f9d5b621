"""The seen-objects index: added objects are found, also by other processes, and changed objects are new."""

from __future__ import annotations

import secrets
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrfleet.records.base import digest_of
from ocrfleet.storage.store import FolderStore
from producer.triggers.s3_listing import Entry
from producer.triggers.seen_objects import FingerprintSet, SeenObjects

PLACE = "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def entry(number: int, etag: str = "a", size: int = 1) -> Entry:
    return Entry(key=f"{number}.pdf", size=size, etag=etag, modified=datetime(2026, 11, 25, tzinfo=UTC))


def test_added_objects_are_found_by_another_process(store: FolderStore) -> None:
    SeenObjects(store, PLACE).add([entry(1), entry(2)])
    changed = [entry(1, etag="b"), entry(2, size=2), entry(3)]
    assert list(SeenObjects(store, PLACE).unknown([entry(2), *changed, entry(1)])) == changed


def test_an_object_that_was_overwritten_and_brought_back_is_new(store: FolderStore) -> None:
    # Given an object that was submitted, then overwritten and submitted, then written as it was first
    first, second, again = (
        entry(1, etag=etag).model_copy(update={"modified": datetime(2026, 11, day, tzinfo=UTC)})
        for day, etag in ((1, "a"), (2, "b"), (3, "a"))
    )
    index = SeenObjects(store, PLACE)
    for one in (first, second):
        assert list(index.unknown([one])) == [one]
        index.add([one])

    # Then it is new, once
    assert list(index.unknown([again])) == [again]
    index.add([again])
    assert list(SeenObjects(store, PLACE).unknown([again])) == []


def test_the_index_of_an_earlier_version_holds_until_an_object_changes(store: FolderStore) -> None:
    # Given a part of a version that did not look at the time
    digest = bytes.fromhex(digest_of("1.pdf", "a", "1"))[:16]
    store.put(f"rolls/{PLACE}/20261126T000000.000000Z-0123456789ab.roll", digest)
    changed, back = (
        entry(1, etag=etag).model_copy(update={"modified": datetime(2026, 11, day, tzinfo=UTC)})
        for day, etag in ((28, "b"), (29, "a"))
    )
    index = SeenObjects(store, PLACE)

    assert list(index.unknown([entry(1), entry(2)])) == [entry(2)]
    assert list(index.unknown([changed])) == [changed]
    index.add([changed])
    # Then the object that is as it was before is new, also for another process
    assert list(SeenObjects(store, PLACE).unknown([back])) == [back]


def test_additions_of_other_processes_are_found_at_the_next_listing(store: FolderStore) -> None:
    one, other = SeenObjects(store, PLACE), SeenObjects(store, PLACE)
    assert list(one.unknown([entry(1)])) == [entry(1)]
    other.add([entry(1)])
    assert list(one.unknown([entry(1)])) == []


def test_another_place_has_another_roll(store: FolderStore) -> None:
    SeenObjects(store, PLACE).add([entry(1)])
    assert list(SeenObjects(store, "1" * 64).unknown([entry(1)])) == [entry(1)]


def test_compaction_keeps_all_objects(store: FolderStore) -> None:
    index = SeenObjects(store, PLACE)
    for number in range(100):
        index.add([entry(number)])
    assert len(list(store.list(f"rolls/{PLACE}/"))) < 64
    assert list(SeenObjects(store, PLACE).unknown([entry(number) for number in range(101)])) == [entry(100)]
    assert list(index.unknown([entry(number) for number in range(101)])) == [entry(100)]


def test_additions_during_compaction_are_kept(store: FolderStore) -> None:
    one, other = SeenObjects(store, PLACE), SeenObjects(store, PLACE)
    for number in range(0, 200, 2):
        one.add([entry(number)])
        other.add([entry(number + 1)])
    assert list(SeenObjects(store, PLACE).unknown([entry(number) for number in range(201)])) == [entry(200)]


def test_looking_writes_nothing(store: FolderStore) -> None:
    for number in range(70):
        SeenObjects(store, PLACE).add([entry(number)])
    parts = list(store.list("rolls/"))
    assert list(SeenObjects(store, PLACE).unknown([entry(1)])) == []
    assert list(store.list("rolls/")) == parts


def test_an_object_takes_sixteen_bytes_of_memory(store: FolderStore) -> None:
    # Given a hundred thousand objects, noted by another process
    count = 100_000
    store.put(f"rolls/{PLACE}/a.seen", secrets.token_bytes(16 * count))
    index = SeenObjects(store, PLACE)
    tracemalloc.start()
    # When they are read, and some more are noted
    assert len(list(index.unknown([entry(number) for number in range(10)]))) == 10
    for first in range(0, 10_000, 1000):
        index.add([entry(number) for number in range(first, first + 1000)])
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Then that is what they take, and a few times that at a moment
    assert kept < 17 * (count + 10_000)
    assert most < 4 * 16 * (count + 10_000)


@given(st.lists(st.lists(st.binary(min_size=16, max_size=16), max_size=20), max_size=20), st.data())
def test_only_added_objects_are_found(batches: list[list[bytes]], data: st.DataObject) -> None:
    noted = FingerprintSet()
    for batch in batches:
        noted.add(np.array(batch, "S16"))
    added = {one for batch in batches for one in batch}
    asked = [*added, *data.draw(st.lists(st.binary(min_size=16, max_size=16), max_size=20))]
    assert noted.contains(np.array(asked, "S16")).tolist() == [one in added for one in asked]
    assert sum(map(len, noted.runs)) <= sum(map(len, batches))


def test_a_part_that_was_cut_short_loses_no_more_than_its_end(store: FolderStore) -> None:
    SeenObjects(store, PLACE).add([entry(1), entry(2)])
    (part,) = store.list(f"rolls/{PLACE}/")
    store.put(part, store.get(part)[:20])
    assert list(SeenObjects(store, PLACE).unknown([entry(1), entry(2)])) == [entry(2)]


def test_without_the_index_all_objects_are_new(store: FolderStore) -> None:
    SeenObjects(store, PLACE).add([entry(1)])
    for part in list(store.list(f"rolls/{PLACE}/")):
        store.delete(part)
    assert list(SeenObjects(store, PLACE).unknown([entry(1)])) == [entry(1)]
