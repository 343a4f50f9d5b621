"""Intake batches: source references of a submission, stored for the intake consumers.

A batch in the store is durable: an HTTP request can then be answered, a message of a queue deleted. Adding a batch twice is
harmless, because the same source becomes the same document.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ocrfleet import keys
from ocrfleet.records.base import digest_of, moment
from ocrfleet.records.submissions import IntakeBatch, IntakeOutcome, SourceReference, SubmissionOptions
from ocrfleet.records.tenants import DEFAULT, tenant_of
from ocrfleet.storage.store import ObjectStore

#: Digits that stand for the client at the begin of a batch's digest, and those of batches without one.
_CLIENT_DIGITS = 8
_NOBODY = "0" * _CLIENT_DIGITS
#: References in one batch: few enough that a bulk batch does not hold up an interactive one for long.
_BATCH = 100


class IntakeBatches:
    """Adds intake batches to a store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def add(self, terms: SubmissionOptions, references: Sequence[SourceReference]) -> str:
        """Store a batch of up to 1,000 references; return its key. The profile in `terms` must be in the store."""
        return self._add(IntakeBatch(created=moment(), terms=terms, wishes=tuple(references)))

    def add_followed(self, terms: SubmissionOptions, reference: SourceReference, *, client: str | None = None) -> str:
        """Store a batch of one reference; return the name of its IntakeOutcome, which the intake consumer writes.

        Its pages are taken from the quota of the `client` over HTTP, if there is one.
        """
        return keys.arrival_name(
            self._add(IntakeBatch(created=moment(), terms=terms, wishes=(reference,), followed=True, client=client))
        )

    def add_all(self, terms: SubmissionOptions, references: Iterable[SourceReference]) -> int:
        """Store any number of references in batches of a hundred; return how many references they were."""
        references, count = iter(references), 0
        while chunk := list(islice(references, _BATCH)):
            self.add(terms, chunk)
            count += len(chunk)
        return count

    def _add(self, batch: IntakeBatch) -> str:
        data, terms = batch.to_bytes(), batch.terms
        digest = (short_client(batch.client or "") or _NOBODY) + digest_of(data.decode())
        key = keys.arrival(terms.queue, terms.collection, batch.created, digest)
        if batch.followed:  # first: the intake consumer overwrites it
            self._store.put(keys.asked(keys.arrival_name(key)), outcome_for(terms).to_bytes())
        self._store.put(key, data)
        return key


def short_client(client: str) -> str:
    """Return the digits that stand for a client in the keys of its batches; "" for one without a name."""
    return digest_of("client", client)[:_CLIENT_DIGITS] if client else ""


def client_of(key: str) -> str:
    """Return the digits that stand for the client of a batch by its key; "" for one without a name."""
    digits = keys.arrival_name(key).partition("-")[2][:_CLIENT_DIGITS]
    return "" if digits == _NOBODY else digits


def outcome_for(terms: SubmissionOptions, **known: Any) -> IntakeOutcome:
    """Return an intake outcome that belongs to the tenant of a submission."""
    tenant = tenant_of(terms.collection)
    return IntakeOutcome(tenant=None if tenant == DEFAULT else tenant, **known)


@dataclass
class Count:
    """Number of sources found, by what was done with them."""

    seen: int = 0
    submitted: int = 0
    #: of unsupported formats, or excluded
    skipped: int = 0

    @property
    def known(self) -> int:
        """Sources that were submitted before and did not change."""
        return self.seen - self.submitted - self.skipped
