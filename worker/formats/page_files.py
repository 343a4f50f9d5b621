"""An output of one XML file a page, in a zip file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, BinaryIO

from worker.formats.archive import Archive

if TYPE_CHECKING:
    from ocrfleet.records.documents import DocumentStatus, Manifest
    from ocrfleet.records.pages import PageResult
    from worker.formats.materials import Materials


def page_file_name(page: int) -> str:
    """Return the name of a page's file."""
    return f"{page:06}.xml"


class PageFilesWriter(ABC):
    """Writes one document to a zip file with an XML file for each page, as 000001.xml."""

    def __init__(self, out: BinaryIO, _: Materials) -> None:
        self._archive = Archive(out)
        self._manifest: Manifest | None = None

    @abstractmethod
    def file(self, result: PageResult, manifest: Manifest) -> bytes:
        """Return the file of a page. A page that failed has what text there is, and says that it failed."""

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:  # noqa: ARG002 - the writer protocol
        self._manifest = manifest

    def page(self, result: PageResult) -> None:
        assert self._manifest is not None  # noqa: S101 - `begin` comes first
        self._archive.write(page_file_name(result.page), self.file(result, self._manifest))

    def end(self) -> None:
        self._archive.close()
