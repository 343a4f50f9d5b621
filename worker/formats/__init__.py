"""Output formats, one file each. All are written in one pass over a document's pages; ocrfleet/formats.py lists them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from ocrfleet.formats import FormatName

if TYPE_CHECKING:
    from ocrfleet.records.documents import DocumentStatus, Manifest
    from ocrfleet.records.pages import PageResult
    from worker.formats.materials import Materials


class Writer(Protocol):
    """Writes one document to a file: nothing before `begin`, at least one byte in all.

    The same pages give the same bytes. Memory does not grow with the number of pages. A method may raise PermanentError to
    refuse the output for a reason in the document, such as an original that is gone.
    """

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None: ...

    def page(self, result: PageResult) -> None:
        """Write a page: each of the document's pages, in order, those that failed, too."""

    def end(self) -> None: ...


class WriterFactory(Protocol):
    def __call__(self, out: BinaryIO, materials: Materials) -> Writer:
        """Return a writer to `out`, a file that can be sought and read."""


#: Module and class of each writer. They are imported when they are used: some bring large libraries.
WRITERS: dict[FormatName, tuple[str, str]] = {
    FormatName.MARKDOWN: ("markdown", "MarkdownWriter"),
    FormatName.JSON: ("document_json", "JsonWriter"),
    FormatName.TEXT: ("plain_text", "TextWriter"),
    FormatName.JSONL: ("jsonl", "JsonlWriter"),
    FormatName.HTML: ("web_page", "HtmlWriter"),
    FormatName.DOCX: ("docx", "DocxWriter"),
    FormatName.IIIF: ("iiif", "IiifWriter"),
    FormatName.FIGURES: ("figure_files", "FiguresWriter"),
    FormatName.TABLES: ("table_files", "TablesWriter"),
    FormatName.PDF: ("pdf.writer", "PdfWriter"),
    FormatName.PDF_KEEP: ("pdf.writer", "KeepingPdfWriter"),
    FormatName.PDF_WEB: ("pdf.writer", "WebPdfWriter"),
    FormatName.PDF_DECRYPTED: ("pdf.writer", "DecryptedPdfWriter"),
    FormatName.PDF_A: ("pdf.writer", "ArchivalPdfWriter"),
    FormatName.ALTO: ("alto", "AltoWriter"),
    FormatName.HOCR: ("hocr", "HocrWriter"),
    FormatName.PAGE_XML: ("page_xml", "PageXmlWriter"),
    FormatName.METS: ("mets", "MetsWriter"),
}


def writer_of(name: FormatName) -> WriterFactory:
    """Return what makes the writer of a format."""
    module, factory = WRITERS[name]
    return cast("WriterFactory", getattr(importlib.import_module(f"worker.formats.{module}"), factory))
