"""The seen-objects index: which objects of a prefix have been submitted, so that listing it again submits none of them twice.

An object is a fingerprint of its key, ETag, size and time: 16 bytes. By its time, an object that was overwritten and then brought
back is a new one. No order of the listing is assumed (SeaweedFS does not list
by bytes, as S3 does). The index is a cache: without it all objects are submitted once more, which is harmless.

Earlier versions wrote fingerprints without the time (`….roll`). Such a one holds until the object has changed once: then its key is in
the index, too.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
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

#: The end of the names of parts that earlier versions wrote.
_EARLIER = ".roll"
#: Bytes of a fingerprint: with 128 bits, two objects collide less than once in 10²⁴ pairs.
_FINGERPRINT = 16
#: Parts of an index, above which they are merged.
_PARTS = 64
#: Objects that are looked up together.
_AT_ONCE = 1000

#: Shape (n,), dtype S16, which numpy sorts and compares by bytes. It ignores zeros at the end, which does not change the order
#: of strings of one length.
Fingerprints = npt.NDArray[np.bytes_]


class SeenObjects:
    """The index of a prefix, whose name is a digest."""

    def __init__(self, store: ObjectStore, place: str) -> None:
        self._store = store
        self._prefix = keys.roll(place)
        self._known = FingerprintSet()
        #: parts that were read or written
        self._read: set[str] = set()
        #: of earlier versions
        self._earlier = FingerprintSet()

    def unknown(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the entries that are new or changed. Raises TransientError."""
        self._refresh()
        return self._unknown(iter(entries))

    def add(self, entries: Sequence[Entry]) -> None:
        """Add submitted objects; merge the parts when they are many. Raises TransientError."""
        if not entries:
            return
        fingerprints = _fingerprints(entries)
        if self._earlier.runs:
            fingerprints = np.concatenate([fingerprints, _digests([entry.key] for entry in entries)])
        self._known.add(fingerprints)
        self._read.add(self._write([fingerprints]))
        ours = {part for part in self._read if not part.endswith(_EARLIER)}
        if len(ours) > _PARTS:
            # Only the parts that the merged one contains; parts of other processes are left.
            merged = self._write(self._known.runs)
            for part in ours:
                self._store.delete(part)
            self._read = (self._read - ours) | {merged}

    def _unknown(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        while batch := list(islice(entries, _AT_ONCE)):
            known = self._known.contains(_fingerprints(batch))
            if self._earlier.runs:
                changed = self._known.contains(_digests([entry.key] for entry in batch))
                earlier = _digests([entry.key, entry.etag, str(entry.size)] for entry in batch)
                known |= self._earlier.contains(earlier) & ~changed
            yield from (entry for entry, noted in zip(batch, known, strict=True) if not noted)

    def _refresh(self) -> None:
        """Read the parts that other processes have added."""
        parts = set(self._store.list(self._prefix))
        self._read &= parts
        for part in sorted(parts - self._read):
            try:
                data = self._store.get(part)
            except NotFoundError:  # another process merged it: the merged part is read the next time
                continue
            fingerprints = np.frombuffer(data, f"S{_FINGERPRINT}", count=len(data) // _FINGERPRINT)
            (self._earlier if part.endswith(_EARLIER) else self._known).add(fingerprints)
            self._read.add(part)

    def _write(self, runs: Iterable[Fingerprints]) -> str:
        part = f"{self._prefix}{moment()}-{uuid.uuid4().hex[:12]}.seen"
        self._store.put(part, b"".join(run.data for run in runs))
        return part


class FingerprintSet:
    """A set of fingerprints: 16 bytes of memory for each, and twice as much while runs are merged.

    It consists of sorted runs, each more than twice as long as the next: adding is cheap, and a look-up searches few runs.
    """

    def __init__(self) -> None:
        self.runs: list[Fingerprints] = []

    def add(self, fingerprints: Fingerprints) -> None:
        """Add fingerprints, in any order; known ones are ignored."""
        self.runs.append(_sorted(fingerprints))
        while len(self.runs) > 1 and len(self.runs[-2]) <= 2 * len(self.runs[-1]):
            self.runs[-2:] = [_sorted(np.concatenate(self.runs[-2:]))]

    def contains(self, fingerprints: Fingerprints) -> npt.NDArray[np.bool_]:
        """Return a mask, shape (n,): whether each fingerprint is in the set."""
        found = np.zeros(len(fingerprints), bool)
        for run in self.runs:
            if len(run):
                at = np.minimum(np.searchsorted(run, fingerprints), len(run) - 1)
                found |= run[at] == fingerprints
        return found


def _sorted(fingerprints: Fingerprints) -> Fingerprints:
    """Return the fingerprints sorted, without duplicates."""
    ordered = np.sort(fingerprints, kind="stable")  # fast for concatenated runs
    again = ordered[1:] == ordered[:-1]
    return np.delete(ordered, np.flatnonzero(again)) if again.any() else ordered


def _fingerprints(entries: Iterable[Entry]) -> Fingerprints:
    return _digests(
        [entry.key, entry.etag, str(entry.size), entry.modified.astimezone(UTC).isoformat()] for entry in entries
    )


def _digests(texts: Iterable[Sequence[str]]) -> Fingerprints:
    digests = (bytes.fromhex(digest_of(*parts)) for parts in texts)
    return np.array([digest[:_FINGERPRINT] for digest in digests], f"S{_FINGERPRINT}")
