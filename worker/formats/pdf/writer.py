"""Writers of searchable PDFs: a copy of the original with text, or a PDF of the page images with text."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from ocrfleet.errors import PageFaultError, PermanentError, Reason
from ocrfleet.records.documents import Kind
from worker.formats.pdf.image_pages import ImagePages
from worker.formats.pdf.pdf_copy import PdfCopy, PdfOptions

if TYPE_CHECKING:
    from ocrfleet.records.documents import DocumentStatus, Manifest
    from ocrfleet.records.pages import PageResult
    from worker.formats.materials import Materials


class PdfWriter:
    """Writes one document. Replaces old invisible text on recognised pages."""

    options = PdfOptions()

    def __init__(self, out: BinaryIO, materials: Materials) -> None:
        self._out = out
        self._materials = materials
        self._pages: PdfCopy | ImagePages
        self._document = ""

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:  # noqa: ARG002 - each page has its own
        sources, memory = self._materials.sources, self._materials.memory
        if not manifest.sources or sources is None:
            raise PermanentError(Reason.SOURCE_MISSING, "there is no original that the text could be added to")
        self._document = manifest.document
        with _faults_refuse():
            if Kind.PDF not in {source.kind for source in manifest.sources}:
                self._pages = ImagePages(self._out, sources, manifest, memory, self.options)
            elif len(manifest.sources) == 1:
                self._pages = PdfCopy(
                    self._out,
                    sources,
                    manifest.sources[0],
                    self.options,
                    passwords=self._materials.passwords,
                    memory=memory,
                )
            else:
                raise PermanentError(Reason.UNSUPPORTED, "the document has several originals, one of them a PDF")
        # Stop the process also if assembly fails.
        weakref.finalize(self, self._pages.close)

    def page(self, result: PageResult) -> None:
        with _faults_refuse():
            self._pages.add(result)

    def end(self) -> None:
        try:
            with _faults_refuse():
                self._pages.end(self._document)
        finally:
            self._pages.close()


class KeepingPdfWriter(PdfWriter):
    """Keeps pages with invisible text of an earlier OCR unchanged."""

    options = PdfOptions(keep=True)


class WebPdfWriter(PdfWriter):
    """Writes a linearised PDF, for viewers that load it page by page."""

    options = PdfOptions(linear=True)


class DecryptedPdfWriter(PdfWriter):
    """Writes an unprotected copy of an encrypted original, with text."""

    options = PdfOptions(decrypt=True)


class ArchivalPdfWriter(PdfWriter):
    """Writes PDF/A-2b."""

    options = PdfOptions(archival=True)


@contextmanager
def _faults_refuse() -> Iterator[None]:
    """Refuse the output if a sandbox crashes, hangs or runs out of memory: the same original would do it again."""
    try:
        yield
    except PageFaultError as error:
        raise PermanentError(error.reason, error.detail) from error
