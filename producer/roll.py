"""The roll of a place: which of its objects have been noted, so that a second look at them asks for none.

An object is a fingerprint of its key, ETag and size: 16 bytes, whatever order a server lists in (SeaweedFS does not list by
bytes, as S3 does). The roll is a cache: without it everything is registered once more, which is harmless.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.jobs import digest_of
from ocrfleet.storage import NotFoundError
from producer.arrivals import moment
from producer.listing import Entry

if TYPE_CHECKING:
    from ocrfleet.storage import ObjectStore

#: Bytes of a fingerprint: 128 bits, so that two objects are taken for one less than once in 10²⁴ pairs.
_FINGERPRINT = 16
#: Parts of a roll after which they are made one.
_PARTS = 64


class Roll:
    """The roll of a place, which is named by a digest; about 100 bytes of memory for each object that is noted."""

    def __init__(self, store: ObjectStore, place: str) -> None:
        self._store = store
        self._prefix = keys.roll(place)
        self._noted: set[bytes] = set()
        self._read: set[str] = set()

    def unknown(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield those that were not noted as they are now. Raises TransientError."""
        self._refresh()
        return (entry for entry in entries if _fingerprint(entry) not in self._noted)

    def note(self, entries: Sequence[Entry]) -> None:
        """Note objects that are safely registered. Raises TransientError."""
        fingerprints = [_fingerprint(entry) for entry in entries]
        self._noted.update(fingerprints)
        if fingerprints:
            self._read.add(self._write(fingerprints))

    def _refresh(self) -> None:
        """Read what was noted by others, and make one part of many."""
        parts = list(self._store.list(self._prefix))
        for part in parts:
            if part not in self._read:
                try:
                    data = self._store.get(part)
                except NotFoundError:  # somebody made one of many: it is read the next time
                    continue
                whole = len(data) - len(data) % _FINGERPRINT
                self._noted.update(data[at : at + _FINGERPRINT] for at in range(0, whole, _FINGERPRINT))
                self._read.add(part)
        if len(parts) > _PARTS:
            merged = self._write(sorted(self._noted))
            for part in parts:
                self._store.delete(part)
            self._read = {merged}

    def _write(self, fingerprints: Iterable[bytes]) -> str:
        part = f"{self._prefix}{moment()}-{uuid.uuid4().hex[:12]}.roll"
        self._store.put(part, b"".join(fingerprints))
        return part


def _fingerprint(entry: Entry) -> bytes:
    return bytes.fromhex(digest_of(entry.key, entry.etag, str(entry.size)))[:_FINGERPRINT]
