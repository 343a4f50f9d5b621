"""Plain text: the pages in order, with a form feed between two, as pdftotext writes them.

What the Markdown leaves out, running heads, feet and page numbers, is left out here, too. A page that is not done says so in
brackets where its text would be: pages never shift.
"""

from __future__ import annotations

from typing import BinaryIO

from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import PageResult
from worker.formats.content import notice, problem_notice, text_of
from worker.formats.materials import Materials

_FORM_FEED = "\f"


class TextWriter:
    """Writes one document to a stream, page by page."""

    def __init__(self, out: BinaryIO, _: Materials) -> None:
        self._out = out
        self._separator = ""

    def begin(self, manifest: Manifest, _status: DocumentStatus) -> None:
        if manifest.problem is not None:
            self._out.write(f"[{problem_notice(manifest.problem)}]\n".encode())

    def page(self, result: PageResult) -> None:
        words = notice(result)
        note = f"[{words}]\n" if words else ""
        text = text_of(result)
        self._out.write(f"{self._separator}{note}{text}{chr(10) if text else ''}".encode())
        self._separator = _FORM_FEED

    def end(self) -> None:
        if not self._out.tell():  # a single blank page: an object has at least one byte
            self._out.write(b"\n")
