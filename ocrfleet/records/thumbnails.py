"""The lines between a process and its renderer of thumbnails (worker/thumbnails.py)."""

from __future__ import annotations

from pydantic import Field

from ocrfleet.records.base import DocumentId, PageNumber, Record


class ThumbnailRequest(Record):
    """Ask for a small image of a page."""

    document: DocumentId
    page: PageNumber
    #: pixels of the longer side
    side: int = Field(ge=64, le=2000)


class ThumbnailAnswer(Record):
    """A small image of a page, or why there is none."""

    #: in base64
    jpeg: str | None = Field(default=None, pattern=r"^[A-Za-z0-9+/]+={0,2}$")
    why: str | None = None
