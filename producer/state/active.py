"""An active document: dispatched, and not ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ocrfleet.broker.ledger import LedgerProgress
from ocrfleet.records.documents import Manifest, Marker


@dataclass(slots=True)
class ActiveDocument:
    """A document whose jobs are being published or worked on."""

    manifest: Manifest
    marker: Marker
    #: as the ledger has it; None when the ledger does not know the document
    progress: LedgerProgress | None = None
    #: pages that had a record in the store when the dispatcher took over the document
    stored: int = 0

    @property
    def document(self) -> str:
        return self.manifest.document

    @property
    def generation(self) -> int:
        return self.marker.generation

    def queued(self) -> int:
        """Return how many pages are on the queue or with workers; an assembly counts as a page."""
        if self.progress is None:
            return 1
        published = self.progress.published
        on_queue = sum(max(0, min(last, published) - first + 1) for first, last in self.manifest.selection)
        return max(1, on_queue - self.progress.terminal_published)

    @property
    def unpublished(self) -> bool:
        """Whether some pages were not published yet."""
        progress = self.progress
        return progress is not None and not progress.complete and progress.published < self.manifest.selection[-1][1]

    def pages_after(self, page: int) -> Iterator[int]:
        """Yield the document's page numbers greater than `page`, ascending."""
        for first, last in self.manifest.selection:
            yield from range(max(first, page + 1), last + 1)
