"""A copy of a PDF with the text of its pages."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ocrfleet.errors import PageFaultError, PermanentError
from ocrfleet.records.pages import PageStatus
from ocrfleet.sandbox.sandbox import Sandbox
from worker.formats.page_layout import page_layout
from worker.formats.pdf.file import PdfFile
from worker.formats.pdf.text_forms import TextForms
from worker.formats.pdf.text_layer import without_visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocrfleet.records.documents import Source
    from ocrfleet.records.pages import PageResult
    from ocrfleet.sources.sources import Sources

#: The program keeps the original open between two calls.
_NEVER = 1 << 62
_PROGRAM = "worker.formats.pdf.original"
#: Name of the only document of a sandbox.
_ORIGINAL = "original"
#: Deadlines in seconds: to open an original, to inspect one page, and to write the largest copies.
_OPEN_DEADLINE, _PAGE_DEADLINE, _SAVE_DEADLINE = 120.0, 30.0, 2400.0
#: Maximum size of a copy: factor of the original's size, bytes per page of text, and a constant.
_TIMES, _PAGE, _MORE = 2, 1 << 20, 64 << 20


@dataclass(frozen=True, slots=True)
class PdfOptions:
    """Options of a copy, set by the name of its format."""

    #: keep invisible text of an earlier OCR and add no text to these pages
    keep: bool = False
    #: linearise: objects of the first page first, for viewers that load a PDF page by page
    linear: bool = False
    #: allow an unprotected copy of an encrypted PDF
    decrypt: bool = False
    #: conform to PDF/A-2b
    archival: bool = False


class PdfCopy:
    """Collects the texts of the pages in a file, then writes the copy. Reads the original only in a sandbox."""

    def __init__(
        self,
        out: BinaryIO,
        sources: Sources,
        source: Source,
        options: PdfOptions,
        *,
        passwords: Sequence[str],
        memory: int,
    ) -> None:
        """Check that a copy is possible. Raises PermanentError."""
        self._sources = sources
        self._source = source
        self._options = options
        self._passwords = list(passwords)
        self._texts = cast("BinaryIO", TemporaryFile())  # noqa: SIM115 - closed by `close`
        self._file = PdfFile(self._texts)
        self._forms = TextForms(self._file)
        #: index of each page with a text, from 0, and the number of its form
        self._added: list[tuple[int, int]] = []
        self._copier = Copier(out, size=_TIMES * source.size + _PAGE * source.pages + _MORE, memory=memory)
        request = {"do": "check", "pages": source.pages, "decrypt": options.decrypt}
        try:
            with sources.opened(source) as fd:
                self._copier.call(request, fd=fd, deadline=_OPEN_DEADLINE, passwords=self._passwords)
        except BaseException:
            self.close()
            raise

    def add(self, result: PageResult) -> None:
        """Add the recognised text of a page. Pages that failed, or whose text layer was used, stay unchanged."""
        width, height = float(result.width_px or 0), float(result.height_px or 0)
        if result.status is not PageStatus.DONE or result.text_layer or not (width and height):
            return
        blocks = page_layout(result)
        if not blocks:
            return
        request = {"do": "visible", "page": result.page - 1}
        boxes = []
        # A page that MuPDF can't read shows no text to it: another decoder rendered it.
        with suppress(PageFaultError, PermanentError), self._sources.opened(self._source) as fd:
            answer = self._copier.call(request, fd=fd, deadline=_PAGE_DEADLINE, passwords=self._passwords)
            boxes = answer["boxes"]
        unseen = without_visible(blocks, boxes, width=width, height=height)
        form = self._forms.add(unseen, width=width, height=height)
        if form is not None:
            self._added.append((result.page - 1, form))

    def end(self, identifier: str) -> None:
        """Write the copy. Raises PermanentError, PageFaultError."""
        self._forms.end()
        end_texts(self._file, self._added, identifier)
        self._texts.flush()
        with self._sources.opened(self._source) as fd:
            self._copier.copy(fd, self._texts.fileno(), self._options, passwords=self._passwords)

    def close(self) -> None:
        self._copier.close()
        self._texts.close()


class Copier:
    """Writes a copy of at most `size` bytes to a file, in a sandbox."""

    def __init__(self, out: BinaryIO, *, size: int, memory: int) -> None:
        self._out = out
        self._size = size
        os.truncate(out.fileno(), size)  # sparse: uses disk space only for written bytes
        self._sandbox = Sandbox(_PROGRAM, memory=memory, shared=size, file=out.fileno(), recycle=_NEVER)

    def call(
        self, request: dict[str, Any], *, fd: int, deadline: float, passwords: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Make one of the program's requests about the original. Raises PermanentError, PageFaultError."""
        return self._sandbox.call(request, fd=fd, deadline=deadline, document=_ORIGINAL, passwords=passwords)

    def close(self) -> None:
        self._sandbox.close()

    def copy(self, original: int, texts: int, options: PdfOptions, *, passwords: Sequence[str]) -> None:
        """Copy the PDF in the file `original` with the texts in the PDF `texts`. Raises PermanentError, PageFaultError."""
        self.call({"do": "open"}, fd=original, deadline=_OPEN_DEADLINE, passwords=passwords)
        request = {"do": "save", "keep": options.keep, "linear": options.linear, "archival": options.archival}
        answer = self.call(request, fd=texts, deadline=_SAVE_DEADLINE)
        os.truncate(self._out.fileno(), min(max(int(answer["size"]), 1), self._size))


def rewrite(out: BinaryIO, original: int, options: PdfOptions, *, memory: int) -> None:
    """Write the PDF in the file `original` to `out` with these options. Raises PermanentError, PageFaultError."""
    copier = Copier(out, size=_TIMES * os.fstat(original).st_size + _MORE, memory=memory)
    with TemporaryFile() as texts:
        end_texts(PdfFile(texts), (), "00")
        texts.flush()
        try:
            copier.copy(original, texts.fileno(), options, passwords=())
        finally:
            copier.close()


def end_texts(file: PdfFile, added: Sequence[tuple[int, int]], identifier: str) -> None:
    """Finish a PDF that contains only text forms: for each, the index of its page and the number of its form."""
    forms = b" ".join(b"[%d %d 0 R]" % entry for entry in added)
    pages = file.add(b"<</Type/Pages/Count 0/Kids[]>>")
    root = file.add(b"<</Type/Catalog/Pages %d 0 R/Forms[%b]>>" % (pages, forms))
    file.end(root=root, identifier=identifier)
