"""The roll of a place: which of its objects have been noted, so that a second look at them asks for none.

An object is a fingerprint of its key, ETag and size: 16 bytes, whatever order a server lists in (SeaweedFS does not list by
bytes, as S3 does). The roll is a cache: without it everything is registered once more, which is harmless.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ocrfleet import keys
from ocrfleet.errors import NotFoundError
from ocrfleet.records.base import digest_of, moment
from producer.triggers.s3_listing import Entry

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore

#: Bytes of a fingerprint: 128 bits, so that two objects are taken for one less than once in 10²⁴ pairs.
_FINGERPRINT = 16
#: Parts of a roll after which they are made one.
_PARTS = 64
#: Objects that are looked up together.
_AT_ONCE = 1000

#: One dimension, of dtype S16: numpy sorts and compares these by their bytes. Zeros at the end count for nothing, which
#: changes no order among strings of one length.
Fingerprints = npt.NDArray[np.bytes_]


class SeenObjects:
    """The roll of a place, which is named by a digest."""

    def __init__(self, store: ObjectStore, place: str) -> None:
        self._store = store
        self._prefix = keys.roll(place)
        self._noted = Noted()
        self._read: set[str] = set()

    def unknown(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield those that were not noted as they are now. Raises TransientError."""
        self._refresh()
        return self._unknown(iter(entries))

    def note(self, entries: Sequence[Entry]) -> None:
        """Note objects that are safely registered, and make one part of many. Raises TransientError."""
        if not entries:
            return
        fingerprints = _fingerprints(entries)
        self._noted.add(fingerprints)
        self._read.add(self._write([fingerprints]))
        if len(self._read) > _PARTS:
            # Of those only that are part of what is written: others' are left.
            merged = self._write(self._noted.runs)
            for part in self._read:
                self._store.delete(part)
            self._read = {merged}

    def _unknown(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        while batch := list(islice(entries, _AT_ONCE)):
            known = self._noted.among(_fingerprints(batch))
            yield from (entry for entry, noted in zip(batch, known, strict=True) if not noted)

    def _refresh(self) -> None:
        """Read what was noted by others."""
        parts = set(self._store.list(self._prefix))
        self._read &= parts
        for part in sorted(parts - self._read):
            try:
                data = self._store.get(part)
            except NotFoundError:  # somebody made one of many: it is read the next time
                continue
            self._noted.add(np.frombuffer(data, f"S{_FINGERPRINT}", count=len(data) // _FINGERPRINT))
            self._read.add(part)

    def _write(self, runs: Iterable[Fingerprints]) -> str:
        part = f"{self._prefix}{moment()}-{uuid.uuid4().hex[:12]}.roll"
        self._store.put(part, b"".join(run.data for run in runs))
        return part


class Noted:
    """A set of fingerprints: 16 bytes of memory for each, and as many again for a moment when runs become one.

    Sorted runs, each more than twice as long as the next: adding costs little, and looking up asks few of them.
    """

    def __init__(self) -> None:
        self.runs: list[Fingerprints] = []

    def add(self, fingerprints: Fingerprints) -> None:
        """Add fingerprints, in any order, known ones or not."""
        self.runs.append(_sorted(fingerprints))
        while len(self.runs) > 1 and len(self.runs[-2]) <= 2 * len(self.runs[-1]):
            self.runs[-2:] = [_sorted(np.concatenate(self.runs[-2:]))]

    def among(self, fingerprints: Fingerprints) -> npt.NDArray[np.bool_]:
        """Say of each fingerprint whether it was added."""
        found = np.zeros(len(fingerprints), bool)
        for run in self.runs:
            if len(run):
                at = np.minimum(np.searchsorted(run, fingerprints), len(run) - 1)
                found |= run[at] == fingerprints
        return found


def _sorted(fingerprints: Fingerprints) -> Fingerprints:
    """Return each of them once, in order."""
    ordered = np.sort(fingerprints, kind="stable")  # which takes a run for what it is
    again = ordered[1:] == ordered[:-1]
    return np.delete(ordered, np.flatnonzero(again)) if again.any() else ordered


def _fingerprints(entries: Sequence[Entry]) -> Fingerprints:
    digests = (bytes.fromhex(digest_of(entry.key, entry.etag, str(entry.size))) for entry in entries)
    return np.array([digest[:_FINGERPRINT] for digest in digests], f"S{_FINGERPRINT}")
