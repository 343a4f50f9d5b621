"""File names of sources for archive formats (ALTO, hOCR, METS, PAGE): base names only, from the URI of the source."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ocrfleet.records.documents import Kind

if TYPE_CHECKING:
    from ocrfleet.records.documents import Manifest, Source

MEDIA_TYPES = {
    Kind.PDF: "application/pdf",
    Kind.PNG: "image/png",
    Kind.JPEG: "image/jpeg",
    Kind.TIFF: "image/tiff",
    Kind.WEBP: "image/webp",
    Kind.BMP: "image/bmp",
    Kind.JPEG2000: "image/jp2",
}


def source_name(source: Source) -> str:
    """Return the file name of a source; for one that has none here, as an upload, one made of its digest."""
    if source.shows_name:
        name = PurePosixPath(unquote(urlsplit(source.uri, allow_fragments=False).path, errors="replace")).name
        if name:
            return name
    return f"{source.sha256}.{source.kind}"


def page_source(manifest: Manifest, page: int) -> tuple[Source, int]:
    """Return the source of a page and the number of the page in it, from 1."""
    index, page_index = manifest.locate(page)
    return manifest.sources[index], page_index + 1
