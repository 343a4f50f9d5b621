"""Read the active documents from the store, for a process that is not the leader."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.records.documents import Manifest, Marker
from producer.state.active import ActiveDocument

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore

#: The most active documents that are read. The backlog limit bounds their number.
_LIMIT = 2000
_THREADS = 16


class ActiveDocumentReader:
    """Reads the active documents periodically; reads their unchanging records once."""

    def __init__(self, store: ObjectStore, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._known: dict[str, ActiveDocument] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="active-documents")

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def read(self) -> list[ActiveDocument]:
        """Return the active documents, with their progress. Raises TransientError when Redis or the store is away."""
        documents = [key.removeprefix(keys.ACTIVE) for key in islice(self._store.list(keys.ACTIVE), _LIMIT)]
        unknown = [document for document in documents if document not in self._known]
        read = dict(zip(unknown, self._pool.map(self._read, unknown), strict=True))
        known = {document: self._known.get(document) or read.get(document) for document in documents}
        self._known = {document: active for document, active in known.items() if active is not None}
        found = list(self._known.values())
        states = self._ledger.progress([(one.document, one.generation) for one in found])
        for active, progress in zip(found, states, strict=True):
            active.progress = progress
            if progress is None:  # it has ended; if it is listed again, it may be in another generation
                del self._known[active.document]
        return found

    def _read(self, document: str) -> ActiveDocument | None:
        with suppress(NotFoundError, DamagedRecordError):  # not found: it has ended meanwhile
            marker = Marker.from_bytes(self._store.get(keys.active(document)))
            return ActiveDocument(Manifest.from_bytes(self._store.get(keys.manifest(document))), marker)
        return None
