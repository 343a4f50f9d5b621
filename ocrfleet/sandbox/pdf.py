"""Opens PDFs for rendering: with MuPDF, with MuPDF after a repair by qpdf, or with PDFium. Every error here is the input's.

Runs inside sandboxes: all three are native code on bytes from anywhere.
"""

from __future__ import annotations

import functools
import importlib
import io
import re
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.pages import PageWarning, WarningCode
from ocrfleet.sandbox.limits import check_index, check_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ocrfleet.sandbox.mapped_file import MappedFile

#: Names of attached files that are documents.
_DOCUMENTS = frozenset({".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".jp2"})
#: The size in points that MuPDF uses for a page with an empty crop box: US letter.
_LETTER = frozenset({(612.0, 792.0), (792.0, 612.0)})
#: The most levels of the page tree in which a box is searched for: deeper trees are malicious.
_DEEPEST = 64
_NUMBER = re.compile(r"[-+]?\d*\.?\d+")

_REBUILT = PageWarning(
    code=WarningCode.REPAIRED, detail="the PDF's table of objects is damaged: MuPDF made a new one to draw it"
)

#: Distance between the rows that are compared first.
_FAR_APART = 101

#: x0, y0, x1, y1
_Box = tuple[float, float, float, float]


class PdfDocument:
    """A PDF opened by MuPDF. Raises PermanentError if that fails, or if the PDF has no pages or none that can be rendered."""

    def __init__(
        self, data: MappedFile | bytes, passwords: Sequence[str] = (), *, warnings: tuple[PageWarning, ...] = ()
    ) -> None:
        self._data = data
        self._passwords = tuple(passwords)
        self._others: list[PdfDocument | PdfiumDocument] | None = None
        with pdf_errors("the PDF is damaged beyond repair: export or download it again"):
            self._document = _open_pdf(data)
            try:
                self._unlock()
                self.pages: int = self._document.page_count
                check_pages(self.pages)
                _refuse_dynamic_form(self._document)
                #: of the whole document
                self.warnings = (*warnings, *((_REBUILT,) if self._document.is_repaired else ()))
                #: of its first page
                self.attachments = _attachments(self._document)
            except BaseException:
                self._document.close()
                raise

    @property
    def pdf(self) -> Any:
        """The pymupdf.Document."""
        return self._document

    def page(self, index: int) -> Any:
        """Return page `index`, from 0, as a pymupdf.Page. Raises PermanentError for a damaged page or none."""
        check_index(index, self.pages)
        with pdf_errors("the page can't be loaded: the PDF's page tree is damaged; export it again"):
            return self._document[index]

    def uncropped(self, page: Any) -> Any:
        """Return the page, without its crop box if that is empty: then the media box counts (PDF 1.7, 14.11.2)."""
        if (page.rect.width, page.rect.height) not in _LETTER:
            return page
        crop, media = _box(self._document, page.xref, "CropBox"), _box(self._document, page.xref, "MediaBox")
        if crop is None or media is None or _overlap(crop, media):
            return page
        self._document.xref_set_key(page.xref, "CropBox", "[{:g} {:g} {:g} {:g}]".format(*media))
        return self._document[page.number]

    def others(self) -> Iterator[PdfDocument | PdfiumDocument]:
        """Yield the same document for other readers, each opened when it is needed: repaired by qpdf, then in PDFium."""
        if self._others is None:
            self._others = []
            for open_it in (_repaired, PdfiumDocument):
                with suppress(PermanentError):
                    self._others.append(open_it(self._data, self._passwords))
        yield from self._others

    def close(self) -> None:
        for other in self._others or ():
            other.close()
        self._document.close()

    def _unlock(self) -> None:
        if self._document.needs_pass and not any(self._document.authenticate(word) for word in self._passwords):
            raise PermanentError(
                Reason.NEEDS_PASSWORD,
                "none of the given passwords opens the PDF: put the right one into the file of --password-file"
                if self._passwords
                else "the PDF needs a password: put it in a file and pass --password-file",
            )


class PdfiumDocument:
    """A PDF opened by PDFium. Raises PermanentError if that fails, or if the PDF has no pages."""

    warnings = (PageWarning(code=WarningCode.OTHER_DECODER, detail="drawn by PDFium, as MuPDF could not"),)

    def __init__(self, data: MappedFile | bytes, passwords: Sequence[str] = ()) -> None:
        pdfium: Any = importlib.import_module("pypdfium2")
        self._data = data  # PDFium reads from it later
        self._document: Any = None
        for password in (None, *passwords):
            with suppress(pdfium.PdfiumError):
                source = data if isinstance(data, bytes) else _rewound(data)
                self._document = pdfium.PdfDocument(source, password=password)
                break
        if self._document is None:
            raise PermanentError(Reason.UNREADABLE, "the PDF is damaged beyond repair: export or download it again")
        self._document.init_forms()
        self.pages: int = len(self._document)
        check_pages(self.pages)

    def size(self, index: int) -> tuple[float, float]:
        """Return the page's width and height as displayed, in points. Raises PermanentError for a damaged page or none."""
        check_index(index, self.pages)
        width, height = self._page(index).get_size()
        return float(width), float(height)

    def draw(self, index: int, size: tuple[int, int]) -> Any:
        """Return a PIL image of this size, in RGB, of the page with its annotations and form fields, on white."""
        page = self._page(index)
        width, height = page.get_size()
        scale = max(size[0] / width, size[1] / height)
        image = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=True).to_pil().convert("RGB")
        return image if image.size == size else image.resize(size)

    def rotation(self, index: int) -> int:
        return int(self._page(index).get_rotation())

    def close(self) -> None:
        self._document.close()

    def _page(self, index: int) -> Any:
        pdfium: Any = importlib.import_module("pypdfium2")
        try:
            return self._document[index]
        except pdfium.PdfiumError as error:
            raise PermanentError(Reason.UNREADABLE, "the page can't be loaded: export the PDF again") from error


def open_pdf(data: MappedFile | bytes, passwords: Sequence[str] = ()) -> PdfDocument | PdfiumDocument:
    """Open a PDF with the first reader that finds pages in it. Raises the PermanentError of the first reader."""
    openers: tuple[Callable[..., PdfDocument | PdfiumDocument], ...] = (PdfDocument, _repaired, PdfiumDocument)
    first: PermanentError | None = None
    for open_it in openers:
        try:
            return open_it(data, passwords)
        except PermanentError as error:
            if error.reason not in (Reason.UNREADABLE, Reason.NO_PAGES):
                raise
            first = first or error
    raise first or AssertionError


@functools.cache
def mupdf() -> Any:
    """Import MuPDF (untyped, native: only in a sandbox), silenced: its warnings are kept for `pdf_errors`."""
    pymupdf: Any = importlib.import_module("pymupdf")
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    # Converting grey to RGB through colour profiles takes a third of a scan's time (50 ms instead of 33) and improves no text.
    pymupdf.TOOLS.set_icc(False)
    return pymupdf


@contextmanager
def pdf_errors(detail: str) -> Iterator[None]:
    """Turn MuPDF's errors into MemoryError, or PermanentError UNREADABLE with `detail`."""
    tools = mupdf().TOOLS
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # PyMuPDF's own exceptions have MuPDF's error as their cause.
        if _out_of_memory(f"{error}\n{error.__cause__}\n{tools.mupdf_warnings()}"):
            raise MemoryError from error
        if isinstance(error, PermanentError):
            raise
        raise PermanentError(Reason.UNREADABLE, detail) from error
    else:
        # MuPDF continues after many errors, and the page then lacks the parts for which memory was missing.
        if _out_of_memory(tools.mupdf_warnings()):
            raise MemoryError
    finally:
        tools.reset_mupdf_warnings()  # otherwise they accumulate


def pdf_messages() -> str:
    """Return MuPDF's messages since the beginning of this `pdf_errors`."""
    return str(mupdf().TOOLS.mupdf_warnings(reset=0))


def is_flat(pixmap: Any) -> bool:
    """Say whether all pixels of a pymupdf.Pixmap are the same (its own `is_unicolor` takes 20 seconds for an empty page)."""
    samples, row, height = pixmap.samples_mv, pixmap.stride, pixmap.height
    first = bytes(samples[: pixmap.n]) * pixmap.width
    # Far apart first: most pages have ink in their middle, and a margin above it.
    rows = (*range(0, height, _FAR_APART), *range(height))
    return all(bytes(samples[row * number : row * (number + 1)]) == first for number in rows)


def _open_pdf(data: MappedFile | bytes) -> Any:
    pymupdf = mupdf()
    try:
        document = pymupdf.open(stream=memoryview(data), filetype="pdf")
    except Exception as error:
        if "encryption" in str(error.__cause__):
            raise PermanentError(
                Reason.UNSUPPORTED, "the PDF is encrypted for one program or person: export it without protection"
            ) from error
        raise
    if not document.is_pdf:
        document.close()
        raise PermanentError(Reason.UNSUPPORTED, "the file is no PDF, although it looks like one: convert it first")
    return document


def _repaired(data: MappedFile | bytes, passwords: Sequence[str] = ()) -> PdfDocument:
    """Return a copy with the objects that qpdf could find, opened by MuPDF. Raises PermanentError."""
    pikepdf: Any = importlib.import_module("pikepdf")
    copy = io.BytesIO()
    for password in ("", *passwords):
        source = io.BytesIO(data) if isinstance(data, bytes) else _rewound(data)
        try:
            with pikepdf.open(source, password=password) as pdf:
                pdf.save(copy)
            break
        except pikepdf.PasswordError:
            continue
        except MemoryError:
            raise
        except Exception as error:  # qpdf's own errors come as several types
            raise PermanentError(Reason.UNREADABLE, "qpdf can't repair the PDF") from error
    warning = PageWarning(code=WarningCode.REPAIRED, detail="the PDF is damaged: qpdf repaired it to be drawn")
    return PdfDocument(copy.getvalue(), warnings=(warning,))


def _rewound(data: MappedFile) -> MappedFile:
    data.seek(0)
    return data


def _refuse_dynamic_form(document: Any) -> None:
    """Raise PermanentError for a form whose pages exist in its XFA only: it renders as Adobe's "Please wait…", or empty."""
    key, catalog = document.xref_get_key, document.pdf_catalog()
    if key(catalog, "AcroForm/XFA")[0] == "null":
        return
    kind, fields = key(catalog, "AcroForm/Fields")
    if kind == "xref":
        fields = document.xref_object(int(fields.split()[0]), compressed=True)
    has_fields = kind != "null" and bool(fields.strip("[] \r\n"))
    # A form with AcroForm fields can be rendered from them.
    if key(catalog, "NeedsRendering")[1] == "true" or (not has_fields and _is_placeholder(document)):
        raise PermanentError(
            Reason.UNSUPPORTED,
            "the PDF is a dynamic XFA form, whose pages only Adobe's programs can render: print it to PDF in Acrobat",
        )


def _is_placeholder(document: Any) -> bool:
    """Say whether a document's only page is empty, or names the program that shows the real ones."""
    if document.page_count != 1:
        return False
    page = document[0]
    text = page.get_text()
    return "Adobe" in text or not (text.strip() or page.get_images() or page.get_drawings())


def _attachments(document: Any) -> tuple[PageWarning, ...]:
    """Return a warning if documents are attached, which are not read."""
    count = document.embfile_count()
    if not count:
        return ()
    if document.xref_get_key(document.pdf_catalog(), "Collection")[0] == "null":
        names = document.embfile_names()
        count = sum(PurePosixPath(name).suffix.lower() in _DOCUMENTS for name in names)
    if not count:
        return ()
    files = "an attached file was" if count == 1 else f"{count} attached files were"
    detail = f"{files} not read: save the PDF's attachments and read them as files of their own"
    return (PageWarning(code=WarningCode.ATTACHMENTS_NOT_READ, detail=detail),)


def _box(document: Any, xref: int, name: str) -> _Box | None:
    """Return a page's box, or the one that it inherits, with its corners in order; None without one."""
    key = document.xref_get_key
    for _ in range(_DEEPEST):
        kind, text = key(xref, name)
        if kind == "xref":
            text = document.xref_object(int(text.split()[0]), compressed=True)
        if kind != "null":
            numbers = [float(number) for number in _NUMBER.findall(text)]
            if len(numbers) != 4:  # noqa: PLR2004 - the corners
                return None
            x0, y0, x1, y1 = numbers
            return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
        kind, parent = key(xref, "Parent")
        if kind != "xref":
            return None
        xref = int(parent.split()[0])
    return None


def _overlap(one: _Box, other: _Box) -> bool:
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(one[3], other[3])


def _out_of_memory(messages: str) -> bool:
    """Say whether a message reports a lack of memory: MuPDF's "malloc (… bytes) failed" and others, or OpenJPEG's."""
    return any(
        ("alloc" in line and "failed" in line) or "exceeds system limits" in line or "enough memory" in line
        for line in messages.lower().splitlines()
    )
