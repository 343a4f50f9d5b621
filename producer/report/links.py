"""Links from a report to the outputs and originals of its documents. They are percent-encoded: no name is a scheme or a tag."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ocrfleet.formats import FORMATS, FormatName
from ocrfleet.sources.sources import is_file
from producer.delivery.to_folder import fitting

if TYPE_CHECKING:
    from ocrfleet.records.documents import Manifest

#: Outputs in which a reader finds a page, best first, and how a browser is sent to it.
_READABLE = (
    (FormatName.HTML, "#page-"),
    (FormatName.PDF, "#page="),
    (FormatName.MARKDOWN, ""),
    (FormatName.TEXT, ""),
    (FormatName.HOCR, ""),
)


def text_link(name: str, outputs: Path | None, report: Path) -> tuple[str, str]:
    """Return the link to a document's text, relative to the report's folder, and what stands before a page number in it."""
    if outputs is not None:
        for output, fragment in _READABLE:
            path = outputs / fitting(name, FORMATS[output].extension)
            if path.is_file():
                relative = os.path.relpath(path.absolute(), report.absolute())
                return "./" + quote(os.fsencode(relative)), fragment
    return "", ""


def original_links(manifest: Manifest) -> list[tuple[str, int, bool]]:
    """Return of each source that is a local file: its URI, its pages, and whether a page can be named in the link."""
    return [
        (source.uri if is_file(source.uri) else "", source.pages, source.kind == "pdf") for source in manifest.sources
    ]
