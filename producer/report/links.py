"""Links from a report to outputs and originals of its documents. Percent-encoding prevents schemes and tags in names."""

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

#: Output formats to link to, best first, and the fragment that addresses a page.
_READABLE = (
    (FormatName.HTML, "#page-"),
    (FormatName.PDF, "#page="),
    (FormatName.MARKDOWN, ""),
    (FormatName.TEXT, ""),
    (FormatName.HOCR, ""),
)


def text_link(name: str, outputs: Path | None, report: Path) -> tuple[str, str]:
    """Return the link to the text of a document, relative to the folder of the report, and its fragment before the page number."""
    if outputs is not None:
        for output, fragment in _READABLE:
            path = outputs / fitting(name, FORMATS[output].extension)
            if path.is_file():
                relative = os.path.relpath(path.absolute(), report.absolute())
                return "./" + quote(os.fsencode(relative)), fragment
    return "", ""


def original_links(manifest: Manifest) -> list[tuple[str, int, bool]]:
    """Return for each source: its URI if it is a local file, else ""; its number of pages; whether a link can name a page."""
    return [
        (source.uri if is_file(source.uri) else "", source.pages, source.kind == "pdf") for source in manifest.sources
    ]
