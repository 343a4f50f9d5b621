"""Submitting: what lies in folders or below prefixes of S3 is noted as arrivals, in batches, again and again without harm.

What was noted of a prefix before is skipped by its roll. Interrupted, the same submission goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ocrfleet import keys, s3
from ocrfleet.jobs import Terms, Wish, digest_of
from ocrfleet.sources import sha256_of, uri_of, uri_of_upload
from ocrfleet.storage import FolderStore
from producer import listing
from producer.arrivals import Arrivals
from producer.discover import Candidate, Skipped, UsageError, discover
from producer.roll import Roll

if TYPE_CHECKING:
    from ocrfleet.settings import S3Settings
    from ocrfleet.storage import ObjectStore
    from producer.filters import Filter, Prefix

#: Wishes of one arrival: few enough that taking one in does not keep a clerk from what is urgent.
_BATCH = 100
#: Objects that one part of the roll notes.
_NOTED_AT_ONCE = 1000

_Item = TypeVar("_Item")


@dataclass
class Count:
    """What came of a submission, in sources."""

    seen: int = 0
    #: submitted before, as they are now
    known: int = 0
    submitted: int = 0
    #: of no kind that is read, or left out
    skipped: int = 0
    problems: list[Skipped] = field(default_factory=list)


class Submitter:
    """Submits sources under the same terms, whose profile has been saved. `told` hears of every batch."""

    def __init__(
        self, store: ObjectStore, terms: Terms, settings: S3Settings, *, told: Callable[[Count], None]
    ) -> None:
        self._store = store
        self._terms = terms
        self._settings = settings
        self._arrivals = Arrivals(store)
        self._told = told
        self.count = Count()

    def prefix(self, place: Prefix, wanted: Filter) -> None:
        """Submit what lies below a prefix, or one object. Raises TransientError, ConfigurationError."""
        roll = Roll(self._store, digest_of(str(place), self._terms.to_bytes().decode()))
        client = s3.client(self._settings)
        unknown = roll.unknown(self._wanted(listing.entries(client, place.bucket, place.prefix), place.bucket, wanted))
        for chunk in _chunks(unknown, _NOTED_AT_ONCE):
            self._add(listing.wish(place.bucket, entry) for entry in chunk)
            # Noted afterwards: a crash between the two submits it twice, which is harmless.
            roll.note(chunk)
            self._tell()
        self._tell()

    def files(self, paths: Sequence[Path]) -> None:
        """Submit files and the files in folders. Raises UsageError, TransientError.

        With a store in a local folder they are referenced where they lie, which all machines must see; else uploaded.
        """
        for chunk in _chunks(discover(paths, group_folders=False, leave_out=Path()), _BATCH):
            wishes = []
            for item in chunk:
                self.count.seen += 1
                if isinstance(item, Skipped):
                    self.count.skipped += 1
                    self.count.problems.append(item)
                else:
                    wishes.append(self._wish(item))
            self._add(wishes)
            self._tell()

    def _wanted(self, entries: Iterable[listing.Entry], bucket: str, wanted: Filter) -> Iterator[listing.Entry]:
        for entry in entries:
            self.count.seen += 1
            if wanted.wants(bucket, entry.key):
                yield entry
            else:
                self.count.skipped += 1

    def _wish(self, candidate: Candidate) -> Wish:
        (path,) = candidate.files
        name = candidate.name.encode("utf-8", "backslashreplace").decode()
        try:
            if isinstance(self._store, FolderStore):
                facts = path.stat()
                return Wish(name=name, uri=uri_of(path), size=facts.st_size, mtime_ns=facts.st_mtime_ns)
            with path.open("rb") as stream:
                sha256 = sha256_of(stream.fileno())
            size = path.stat().st_size
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}") from error
        self._store.create_from(keys.upload(sha256), path)
        return Wish(name=name, uri=uri_of_upload(sha256), size=size)

    def _add(self, wishes: Iterable[Wish]) -> None:
        for batch in _chunks(iter(wishes), _BATCH):
            self._arrivals.add(self._terms, batch)
            self.count.submitted += len(batch)

    def _tell(self) -> None:
        self.count.known = self.count.seen - self.count.submitted - self.count.skipped
        self._told(self.count)


def _chunks(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    while chunk := list(islice(items, size)):
        yield chunk
