"""List documents by the indexes of the store, without a scan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.records.priority import Priority
from ocrfleet.records.tenants import DEFAULT, stored_collection, tenant_of
from producer.documents.lookup import MOST, Lookup
from producer.documents.views import ENDED, OPEN, Documents, DocumentSummary, State
from producer.errors import UnanswerableError

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore

#: Index entries that one call reads at most, and in one batch.
_LOOKED_AT = 5000
_AT_ONCE = 250

_COLLECTION = re.compile(r"(?:[a-z0-9][a-z0-9-]{0,31}~)?[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_DAY = re.compile(r"\d{8}")


@dataclass(frozen=True, slots=True)
class TenantCollections:
    """A tenant, and its collections by their stored names."""

    tenant: str
    #: ascending; None: there are no other tenants, so the indexes of all documents are this tenant's, too
    collections: tuple[str, ...] | None

    @classmethod
    def of(cls, store: ObjectStore, tenant: str) -> TenantCollections:
        """Read which collections a tenant has. Raises TransientError."""
        every = store.folders(keys.COLLECTIONS)
        own = tuple(sorted(name for name in every if tenant_of(name) == tenant))
        return cls(tenant, None if tenant == DEFAULT and len(own) == len(every) else own)


class Query:
    """A query for documents. Raises UnanswerableError for one that would need a scan.

    That of a tenant reads the listings of its own collections only, so neither answers nor cursors have another tenant's.
    """

    def __init__(
        self,
        *,
        collection: str | None,
        state: State | None,
        day: str | None,
        review: bool | None = None,
        tenant: TenantCollections | None = None,
    ) -> None:
        if collection is not None:
            check_collection(collection)
        if day is not None and not _DAY.fullmatch(day):
            raise UnanswerableError(f"{day!r} is no day: write it like 20261122 (UTC)")
        if state is not None and state not in {*OPEN, *ENDED}:
            raise UnanswerableError(f"documents are never {state}: ask for {', '.join([*sorted(OPEN), *ENDED])}")
        if collection is None and state is None and day is None:
            raise UnanswerableError("name a collection, a status or a day: there is no index of all documents")
        if state in OPEN and day is not None:
            raise UnanswerableError(f"documents that are {state} can't be asked for by day, only by collection")
        self._tenant = tenant.tenant if tenant is not None else None
        #: stored names of the collections whose listings are read; None: the indexes by state
        self._listed: tuple[str, ...] | None = None
        if tenant is not None:
            collection = None if collection is None else stored_collection(tenant.tenant, collection)
            if tenant.collections is not None:
                self._listed = tenant.collections if collection is None else (collection,)
        self._collection = collection
        self._state = state
        self._day = day
        self._review = review
        self._prefixes = self._sources()

    def answer(self, store: ObjectStore, lookup: Lookup, *, after: str | None, limit: int) -> Documents:
        """Return the documents after the cursor `after`, `limit` at most; fewer when too many index entries were read."""
        if after is not None and not after.startswith(self._prefixes):
            raise UnanswerableError("the cursor is not one of this question: ask without it to begin anew")
        limit = max(1, min(limit, MOST))
        listing = self._entries(store, after)
        items: list[DocumentSummary] = []
        before = _document(after) if after is not None else ""
        looked_at = 0
        while looked_at < _LOOKED_AT:
            entries = list(islice(listing, _AT_ONCE))
            if not entries:
                return Documents(items=tuple(items))
            looked_at += len(entries)
            distinct = []
            for key in entries:  # a document that is wanted under several names has neighbouring entries
                if _document(key) != before:
                    before = _document(key)
                    distinct.append(key)
            likely = [
                key
                for key, fits in zip(distinct, lookup.each(lambda key: self._likely(store, key), distinct), strict=True)
                if fits
            ]
            while likely:
                part, likely = likely[: limit - len(items)], likely[limit - len(items) :]
                summaries = lookup.summaries([_document(key) for key in part], tenant=self._tenant)
                items += [
                    summary
                    for key, summary in zip(part, summaries, strict=True)
                    if summary is not None and self._fits(key, summary)
                ]
                if len(items) == limit:
                    return Documents(items=tuple(items), next=part[-1])
            after = entries[-1]
        return Documents(items=tuple(items), next=after)

    def _sources(self) -> tuple[str, ...]:
        """Return the prefixes of the entries to look at, ascending."""
        if self._listed is not None:
            return tuple(sorted(map(keys.submissions, self._listed)))
        if self._state is State.ACTIVE:
            return (keys.ACTIVE,)
        if self._state is State.WAITING:
            return tuple(sorted(keys.waiting_in(queue, self._collection) for queue in Priority))
        if self._collection is not None:
            return (keys.submissions(self._collection),)
        states = ENDED if self._state is None else (self._state,)
        return tuple(sorted(keys.ended_on(state, self._day) for state in states))

    def _entries(self, store: ObjectStore, after: str | None) -> Iterator[str]:
        if self._day is not None and (self._collection is not None or self._listed is not None):
            return chain.from_iterable(
                _of_day(store, prefix, prefix + self._day, after or "") for prefix in self._prefixes
            )
        return chain.from_iterable(store.list(prefix, after=after) for prefix in self._prefixes)

    def _likely(self, store: ObjectStore, key: str) -> bool:
        """Say cheaply whether an entry may fit: one request, where a document takes several."""
        if self._listed is not None or self._collection is None or self._state is None or self._state in OPEN:
            return True
        created = key.removeprefix(keys.submissions(self._collection))
        return store.exists(keys.ended(self._state, created[:8], _document(key)))

    def _fits(self, key: str, summary: DocumentSummary) -> bool:
        """Say whether the document matches its index entry: entries are updated late."""
        if self._state is not None and summary.state is not self._state:
            return False
        if self._review is not None and self._review is not bool(summary.review):
            return False
        if self._listed is None and self._state is State.ACTIVE and self._collection is not None:
            return self._collection in summary.collections
        return not key.startswith("ended/") or key.startswith(keys.ended_on(summary.state))


def _of_day(store: ObjectStore, prefix: str, first: str, after: str) -> Iterator[str]:
    return takewhile(lambda key: key.startswith(first), store.list(prefix, after=max(after, first)))


def check_collection(collection: str) -> None:
    """Raise UnanswerableError unless the text is the name of a collection."""
    if not _COLLECTION.fullmatch(collection):
        raise UnanswerableError(
            f"{collection!r} is no collection's name: these have up to 64 letters, digits, dots, hyphens and underscores"
        )


def _document(key: str) -> str:
    """Return the id in an index entry; "" for an object of another program."""
    with suppress(ValueError):
        return keys.document_in(key)
    return ""
