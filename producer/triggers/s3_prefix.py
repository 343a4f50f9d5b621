"""What lies below a prefix in S3 becomes arrivals: what is wanted of it, and was not noted as it is now.

Done again, it goes on: after an interruption as well as when new objects have come.
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

#: Objects that one part of the roll notes.
_NOTED_AT_ONCE = 1000


class Prefixes:
    """Registers what lies below prefixes, all under the same terms, whose profile has been saved.

    Several places may be registered at the same time, each by one thread.
    """

    def __init__(self, store: ObjectStore, terms: SubmissionOptions, wanted: Filter, settings: S3Settings) -> None:
        self._store = store
        self._terms = terms
        self._wanted = wanted
        self._client = s3.client(settings)
        self._arrivals = IntakeBatches(store)
        #: kept from look to look, so that each reads only what others have noted meanwhile
        self._rolls: dict[Prefix, SeenObjects] = {}

    def register(
        self,
        place: Prefix,
        count: Count,
        *,
        since: datetime | None = None,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """Register what was not noted yet, with `since` only of what was changed then or later.

        `count` is kept while it goes on, and `told` is called now and then. Raises TransientError, and ConfigurationError
        when the prefix can't be listed: then some may be registered.
        """
        roll = self._roll(place)
        unknown = roll.unknown(self._listed(place, count, since))
        while chunk := list(islice(unknown, _NOTED_AT_ONCE)):
            count.submitted += self._arrivals.add_all(
                self._terms, (listing.wish(place.bucket, entry) for entry in chunk)
            )
            # Noted afterwards: a crash between the two registers it twice, which is harmless.
            roll.note(chunk)
            told()
        told()

    def unknown(self, place: Prefix, count: Count) -> Iterator[SourceReference]:
        """Yield what would be registered, and count it as if it were. Raises TransientError, ConfigurationError."""
        for entry in self._roll(place).unknown(self._listed(place, count, None)):
            count.submitted += 1
            yield listing.wish(place.bucket, entry)

    def _listed(self, place: Prefix, count: Count, since: datetime | None) -> Iterator[listing.Entry]:
        for entry in listing.entries(self._client, place.bucket, place.prefix):
            if since is not None and entry.modified < since:
                continue
            count.seen += 1
            if self._wanted.wants(place.bucket, entry.key):
                yield entry
            else:
                count.skipped += 1

    def _roll(self, place: Prefix) -> SeenObjects:
        if place not in self._rolls:
            self._rolls[place] = SeenObjects(self._store, digest_of(str(place), self._terms.to_bytes().decode()))
        return self._rolls[place]
