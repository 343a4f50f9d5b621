"""The roll: what was noted is known, also by others, and what changed is not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ocrfleet.storage import FolderStore
from producer.listing import Entry
from producer.roll import Roll

PLACE = "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def entry(number: int, etag: str = "a", size: int = 1) -> Entry:
    return Entry(key=f"{number}.pdf", size=size, etag=etag, modified=datetime(2026, 11, 25, tzinfo=UTC))


def test_what_was_noted_is_known_to_whoever_looks_next(store: FolderStore) -> None:
    Roll(store, PLACE).note([entry(1), entry(2)])
    changed = [entry(1, etag="b"), entry(2, size=2), entry(3)]
    assert list(Roll(store, PLACE).unknown([entry(2), *changed, entry(1)])) == changed


def test_what_others_note_meanwhile_is_seen_at_the_next_look(store: FolderStore) -> None:
    one, other = Roll(store, PLACE), Roll(store, PLACE)
    assert list(one.unknown([entry(1)])) == [entry(1)]
    other.note([entry(1)])
    assert list(one.unknown([entry(1)])) == []


def test_another_place_has_another_roll(store: FolderStore) -> None:
    Roll(store, PLACE).note([entry(1)])
    assert list(Roll(store, "1" * 64).unknown([entry(1)])) == [entry(1)]


def test_many_parts_become_one_and_nothing_is_forgotten(store: FolderStore) -> None:
    roll = Roll(store, PLACE)
    for number in range(100):
        roll.note([entry(number)])
    assert list(Roll(store, PLACE).unknown([entry(number) for number in range(101)])) == [entry(100)]
    assert len(list(store.list(f"rolls/{PLACE}/"))) == 1
    assert list(roll.unknown([entry(number) for number in range(101)])) == [entry(100)]


def test_a_part_that_was_cut_short_loses_no_more_than_its_end(store: FolderStore) -> None:
    Roll(store, PLACE).note([entry(1), entry(2)])
    (part,) = store.list(f"rolls/{PLACE}/")
    store.put(part, store.get(part)[:20])
    assert list(Roll(store, PLACE).unknown([entry(1), entry(2)])) == [entry(2)]


def test_without_the_roll_everything_is_unknown_again(store: FolderStore) -> None:
    Roll(store, PLACE).note([entry(1)])
    for part in list(store.list(f"rolls/{PLACE}/")):
        store.delete(part)
    assert list(Roll(store, PLACE).unknown([entry(1)])) == [entry(1)]
