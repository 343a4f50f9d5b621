"""The sandboxed program that turns pages into pixels, started by a Sandbox.

A request for a page's `text` returns the text layer of a PDF page instead (worker/text_layer/extract.py).

MuPDF renders PDF pages, Pillow decodes image files at no more than the size needed. Pillow also decodes a PDF page that
consists of one JPEG, because MuPDF's decoder takes twice the time (bench/rendering.py). Pixels are in the shared memory: uint8,
row after row, grey or RGB. The parent converts them to RGB and reduces them by the last few per cent, with OpenCV: that has too
many libraries for this process's limits.
"""

from __future__ import annotations

import ctypes
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.decoders import Document, load_decoders, open_document
from ocrfleet.sandbox.image_files import ImageDocument
from ocrfleet.sandbox.pdf import PdfDocument
from worker.rendering.image_pages import draw_image
from worker.rendering.pdf_pages import draw_pdf_page
from worker.rendering.raster import Raster
from worker.text_layer.extract import extract

if TYPE_CHECKING:
    from mmap import mmap

    from ocrfleet.sandbox.child import Handler

#: Names of two settings (glibc's malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class Rasteriser:
    """Keeps its document open: opening a large PDF for each of its pages takes longer than rendering them."""

    def __init__(self) -> None:
        self._document: Document | None = None

    def __call__(self, request: dict[str, Any], fd: int | None, shared: mmap | None) -> dict[str, Any]:
        """Render the page of `request` into `shared` and return its size, or return its text if the request is for that."""
        if fd is None or shared is None:
            raise ValueError("drawing needs a document and memory to draw into")
        if self._document is None:
            self._document = open_document(fd, Kind(request["kind"]), request["passwords"])
        document = self._document
        if request["want"] == "text":
            if not isinstance(document, PdfDocument):
                raise PermanentError(Reason.UNREADABLE, "the page's text can't be taken out: only MuPDF does that")
            return extract(document, request["page"])
        render = Render.model_validate(request["render"])
        if isinstance(document, ImageDocument):
            return _answer(draw_image(document, request["page"], render, shared))
        return _answer(draw_pdf_page(document, request["page"], render, shared))


def handler() -> Handler:
    _keep_freed_memory()
    load_decoders()
    return Rasteriser()


def _answer(raster: Raster) -> dict[str, Any]:
    answer = {field.name: getattr(raster, field.name) for field in fields(raster)}
    return answer | {"warnings": [[warning.code, warning.detail] for warning in raster.warnings]}


def _keep_freed_memory() -> None:
    """Let the C library keep the memory of a page, up to 64 MB, for the next one.

    Giving it back to the kernel and taking it anew, 4 KB at a time, is a third of a colour scan's time (bench/rendering.py).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(
            _M_MMAP_THRESHOLD, 32 << 20
        )  # the largest allowed value: larger blocks are always returned to the system
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
