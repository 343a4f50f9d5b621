"""The quarantine: pages that workers died of, each of them alone with its page, until somebody has them tried again."""

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
    """Yield the pages in quarantine, by document, with what was seen of them. Raises TransientError."""
    for key in store.list(keys.QUARANTINED):
        document, _, name = key.removeprefix(keys.QUARANTINED).partition("/")
        page, generation = map(int, name.split("-"))
        try:
            manifest = Manifest.from_bytes(store.get(keys.manifest(document)))
            seen = store.get(key).decode(errors="replace")
        except (NotFoundError, DamagedRecordError):
            continue  # deleted meanwhile, or told of where the document is asked for
        yield QuarantinedPage(
            document=document,
            page=page,
            generation=generation,
            uri=manifest.sources[0].uri if manifest.sources else "",
            seen=seen,
        )


def release(store: ObjectStore, document: str) -> None:
    """Take a document's pages out of quarantine: they are tried again, or the document is gone. Raises TransientError."""
    for key in list(store.list(keys.quarantined_of(document))):
        store.delete(key)


class View(BaseModel):
    """A frozen value."""

    model_config = ConfigDict(frozen=True)


class QuarantinedPage(View):
    """A page that workers died of, each alone with it."""

    document: DocumentId
    page: int
    generation: int
    uri: str
    #: how the workers died, as far as anybody saw it
    seen: str
