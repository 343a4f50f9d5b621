"""Output formats, one file each. All are written in one pass over a document's pages."""

from __future__ import annotations

from typing import BinaryIO, Protocol

from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import PageResult
from worker.formats import document_json, markdown


class Writer(Protocol):
    """Writes one document to a stream."""

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None: ...

    def page(self, result: PageResult) -> None: ...

    def end(self) -> None: ...


class WriterFactory(Protocol):
    def __call__(self, out: BinaryIO) -> Writer: ...


WRITERS: dict[str, WriterFactory] = {
    markdown.EXTENSION: markdown.MarkdownWriter,
    document_json.EXTENSION: document_json.JsonWriter,
}
