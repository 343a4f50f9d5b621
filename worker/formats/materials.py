"""What the writers of output formats may use beside the pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ocrfleet.settings import IIIF_URL

if TYPE_CHECKING:
    from ocrfleet.settings import Settings
    from ocrfleet.sources.sources import Sources
    from ocrfleet.storage.store import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """The store with a document's figures, and its originals."""

    store: ObjectStore
    #: opens the originals; None where there is no access to them
    sources: Sources | None = None
    #: for encrypted originals
    passwords: tuple[str, ...] = ()
    #: bytes of memory that a process may take that parses an original
    memory: int = 1 << 30
    #: URL below which IIIF manifests and page images are published
    iiif_url: str = IIIF_URL

    @classmethod
    def of(cls, settings: Settings, store: ObjectStore, sources: Sources) -> Self:
        return cls(
            store=store,
            sources=sources,
            passwords=settings.passwords(),
            memory=settings.render_memory_mb << 20,
            iiif_url=settings.iiif_url,
        )
