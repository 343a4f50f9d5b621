"""Read the status of a document's newest generation."""

from __future__ import annotations

from ocrfleet import keys
from ocrfleet.records.documents import Status
from ocrfleet.storage.store import ObjectStore


def latest_status(store: ObjectStore, document: str) -> Status | None:
    """Return the status of the newest generation that ended; None without one. Raises TransientError."""
    key = max(store.list(keys.statuses(document)), default=None)
    return Status.from_bytes(store.get(key)) if key else None
