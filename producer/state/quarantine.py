"""Quarantine: pages with which workers died while each was alone in flight, until a retry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.records.base import DocumentId
from ocrfleet.records.documents import Manifest

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore


def quarantined(store: ObjectStore) -> Iterator[QuarantinedPage]:
    """Yield the pages in quarantine by document. Raises TransientError."""
    for key in store.list(keys.QUARANTINED):
        document, _, name = key.removeprefix(keys.QUARANTINED).partition("/")
        page, generation = map(int, name.split("-"))
        try:
            manifest = Manifest.from_bytes(store.get(keys.manifest(document)))
            seen = store.get(key).decode(errors="replace")
        except (NotFoundError, DamagedRecordError):
            continue  # deleted meanwhile; a damaged manifest is reported where the document is read
        yield QuarantinedPage(
            document=document,
            page=page,
            generation=generation,
            uri=manifest.sources[0].uri if manifest.sources else "",
            seen=seen,
        )


def release(store: ObjectStore, document: str) -> None:
    """Remove a document's pages from quarantine, for a retry or a deletion. Raises TransientError."""
    for key in list(store.list(keys.quarantined_of(document))):
        store.delete(key)


class View(BaseModel):
    """Base of the frozen values that commands print and the API returns."""

    model_config = ConfigDict(frozen=True)


class QuarantinedPage(View):
    """A page with which workers died, while it was alone in flight."""

    document: DocumentId
    page: int
    generation: int
    uri: str
    #: how the workers ended, where a supervisor saw it
    seen: str
