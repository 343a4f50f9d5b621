"""Arrivals: what somebody wants read is noted safely at once, and looked at later, by the fleet.

Whoever adds one may forget it: an upload's request is answered, a queue's message is deleted. Adding it twice is
harmless, as intake finds the same documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.records.base import digest_of, moment
from ocrfleet.records.submissions import IntakeBatch, IntakeOutcome, SourceReference, SubmissionOptions
from ocrfleet.storage.store import ObjectStore

if TYPE_CHECKING:
    pass


#: Wishes of one arrival: few enough that taking one in does not keep a clerk from what is urgent.
_BATCH = 100


class IntakeBatches:
    """Notes arrivals in a store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def add(self, terms: SubmissionOptions, wishes: Sequence[SourceReference]) -> str:
        """Note up to 1,000 wishes durably; return the arrival's key. The terms' profile must have been saved."""
        return self._add(IntakeBatch(created=moment(), terms=terms, wishes=tuple(wishes)))

    def add_followed(self, terms: SubmissionOptions, wish: SourceReference) -> str:
        """Note a wish as `add` does; return the name under which `Asked` says what became of it."""
        return keys.arrival_name(self._add(IntakeBatch(created=moment(), terms=terms, wishes=(wish,), followed=True)))

    def add_all(self, terms: SubmissionOptions, wishes: Iterable[SourceReference]) -> int:
        """Note any number of wishes, a hundred in each arrival; return how many they were."""
        wishes, count = iter(wishes), 0
        while batch := list(islice(wishes, _BATCH)):
            self.add(terms, batch)
            count += len(batch)
        return count

    def _add(self, arrival: IntakeBatch) -> str:
        data, terms = arrival.to_bytes(), arrival.terms
        key = keys.arrival(terms.queue, terms.collection, arrival.created, digest_of(data.decode()))
        if arrival.followed:  # first: what became of it is written over this
            self._store.put(keys.asked(keys.arrival_name(key)), IntakeOutcome().to_bytes())
        self._store.put(key, data)
        return key


@dataclass
class Count:
    """What came of looking for sources, in sources."""

    seen: int = 0
    submitted: int = 0
    #: of no kind that is read, or left out
    skipped: int = 0

    @property
    def known(self) -> int:
        """Noted before, as they are now."""
        return self.seen - self.submitted - self.skipped
