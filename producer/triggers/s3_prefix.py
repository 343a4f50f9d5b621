"""Submission of S3 prefixes: new and changed objects become intake batches.

Done again, it resumes after an interruption, and finds objects that were added since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from ocrfleet.records.base import digest_of
from ocrfleet.records.submissions import SourceReference, SubmissionOptions
from ocrfleet.s3 import client as s3
from producer.intake.batches import Count, IntakeBatches
from producer.triggers import s3_listing as listing
from producer.triggers.seen_objects import SeenObjects

if TYPE_CHECKING:
    from ocrfleet.settings import S3Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.triggers.filters import Filter, Prefix

#: Objects that are submitted, and added to the index, together.
_AT_ONCE = 1000


class PrefixRegistration:
    """Submits the objects below prefixes with the same options, whose profile is in the store.

    Threads may share it, with one thread a prefix.
    """

    def __init__(self, store: ObjectStore, terms: SubmissionOptions, wanted: Filter, settings: S3Settings) -> None:
        self._store = store
        self._terms = terms
        self._wanted = wanted
        self._client = s3.client(settings)
        self._batches = IntakeBatches(store)
        #: kept between listings, so that each reads only what other processes have added
        self._indexes: dict[Prefix, SeenObjects] = {}

    def register(
        self,
        place: Prefix,
        count: Count,
        *,
        since: datetime | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Submit objects that are new or changed; with `since`, only of those modified at that time or later.

        Updates `count` and calls `progress` after each chunk. Raises TransientError, and ConfigurationError when the prefix
        can't be listed; some objects may then be submitted.
        """
        index = self._index(place)
        unknown = index.unknown(self._listed(place, count, since))
        while chunk := list(islice(unknown, _AT_ONCE)):
            count.submitted += self._batches.add_all(
                self._terms, (listing.reference(place.bucket, entry) for entry in chunk)
            )
            # In this order: after a crash between the two, objects are submitted twice, which is harmless.
            index.add(chunk)
            progress()
        progress()

    def unknown(self, place: Prefix, count: Count) -> Iterator[SourceReference]:
        """Yield references to the objects that would be submitted, and count them. Raises TransientError, ConfigurationError."""
        for entry in self._index(place).unknown(self._listed(place, count, None)):
            count.submitted += 1
            yield listing.reference(place.bucket, entry)

    def _listed(self, place: Prefix, count: Count, since: datetime | None) -> Iterator[listing.Entry]:
        for entry in listing.entries(self._client, place.bucket, place.prefix):
            if since is not None and entry.modified < since:
                continue
            count.seen += 1
            if self._wanted.wants(place.bucket, entry.key):
                yield entry
            else:
                count.skipped += 1

    def _index(self, place: Prefix) -> SeenObjects:
        if place not in self._indexes:
            self._indexes[place] = SeenObjects(self._store, digest_of(str(place), self._terms.to_bytes().decode()))
        return self._indexes[place]
