"""Opens documents in a sandbox, to count or decode their pages."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.image_files import ImageDocument
from ocrfleet.sandbox.mapped_file import MappedFile
from ocrfleet.sandbox.pdf import PdfDocument, PdfiumDocument, mupdf, open_pdf

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Modules that are imported where they are needed, because native code is for sandboxes only.
_DECODERS = ("pikepdf", "pypdfium2", "PIL.ImageCms", "PIL.ImageEnhance", "PIL.ImageFile", "PIL.ImageOps")
_FORMATS = ("Bmp", "Jpeg", "Jpeg2K", "Png", "Tiff", "WebP")

Document = PdfDocument | PdfiumDocument | ImageDocument


def load_decoders() -> None:
    """Import the decoders, so that processes forked from this one have them."""
    mupdf()
    for name in (*_DECODERS, *(f"PIL.{name}ImagePlugin" for name in _FORMATS)):
        importlib.import_module(name)


def open_document(fd: int, kind: Kind, passwords: Sequence[str] = ()) -> Document:
    """Open the file behind descriptor `fd`, which may be closed afterwards.

    Raises PermanentError: EMPTY_FILE, NEEDS_PASSWORD, NO_PAGES, UNREADABLE, UNSUPPORTED or TOO_LARGE; never with a
    password in its text.
    """
    size = os.fstat(fd).st_size
    if size == 0:
        raise PermanentError(Reason.EMPTY_FILE, "the file has no bytes: copy or upload it again")
    data = MappedFile(fd, size)
    return open_pdf(data, passwords) if kind is Kind.PDF else ImageDocument(data, kind)
