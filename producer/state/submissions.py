"""The submissions of a document: a tenant's own, and those of the other tenants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.records.submissions import Submission
from ocrfleet.records.tenants import DEFAULT

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore


def own_keys(store: ObjectStore, document: str, tenant: str) -> Iterator[str]:
    """Yield the keys of a tenant's submissions of a document, however many there are. Raises TransientError."""
    if tenant == DEFAULT:
        return takewhile(keys.wanted_by_default, store.list(keys.wanted_by(document)))
    return iter(store.list(keys.wanted_by(document, tenant)))


def foreign_keys(store: ObjectStore, document: str, tenant: str) -> Iterator[str]:
    """Yield the keys of the other tenants' submissions of a document. Raises TransientError.

    The tenant's own are not listed, so their number costs nothing.
    """
    if tenant != DEFAULT:
        yield from own_keys(store, document, DEFAULT)
    for folder in store.folders(keys.wanted_by(document)):
        other = folder.partition("~")[2]
        if other and other != tenant:
            yield from own_keys(store, document, other)


def read_submissions(store: ObjectStore, listing: Iterator[str]) -> Iterator[Submission]:
    """Yield the submissions of these keys, without those that are gone or damaged. Raises TransientError."""
    for key in listing:
        with suppress(NotFoundError, DamagedRecordError):
            yield Submission.from_bytes(store.get(key))


def others_wait(store: ObjectStore, document: str, tenant: str) -> bool:
    """Return whether another tenant has submitted a document and not cancelled it. Raises TransientError."""
    return any(
        submission.cancelled is None for submission in read_submissions(store, foreign_keys(store, document, tenant))
    )


def note_cancelled(store: ObjectStore, submission: Submission, generation: int | None) -> None:
    """Record that the tenant of a submission cancelled a generation, or, with None, that it wants the document. Raises TransientError."""
    tenant = None if submission.tenant == DEFAULT else submission.tenant
    noted = submission.model_copy(update={"cancelled": generation})
    store.put(keys.wanted(submission.document, submission.digest, tenant), noted.to_bytes())
