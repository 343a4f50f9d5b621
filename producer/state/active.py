"""A document that was dispatched and has not ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ocrfleet.broker.ledger import Progress
from ocrfleet.records.documents import Manifest, Marker


@dataclass(slots=True)
class Active:
    """A document whose jobs are being published or worked on."""

    manifest: Manifest
    marker: Marker
    progress: Progress | None = None
    #: pages that had a record in the store when the dispatcher took the document
    stored: int = 0

    @property
    def document(self) -> str:
        return self.manifest.document

    @property
    def generation(self) -> int:
        return self.marker.generation

    def queued(self) -> int:
        """Return how many pages are on the queue or being worked on; an assembly counts as a page."""
        if self.progress is None:
            return 1
        published = self.progress.published
        handed = sum(max(0, min(last, published) - first + 1) for first, last in self.manifest.selection)
        return max(1, handed - self.progress.terminal_published)

    @property
    def unpublished(self) -> bool:
        """Whether pages are left that were not handed to the queue."""
        progress = self.progress
        return progress is not None and not progress.complete and progress.published < self.manifest.selection[-1][1]

    def pages_after(self, page: int) -> Iterator[int]:
        """Yield the document's pages behind this one."""
        for first, last in self.manifest.selection:
            yield from range(max(first, page + 1), last + 1)
