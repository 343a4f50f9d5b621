"""The figures as PNG files, in a zip file, with a list of their places and captions."""

from __future__ import annotations

import io
from typing import BinaryIO

import PIL.Image

from ocrfleet import keys
from ocrfleet.errors import NotFoundError
from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import PageResult
from worker.formats.archive import Archive
from worker.formats.content import visible
from worker.formats.materials import Materials
from worker.formats.page_text import captions
from worker.formats.table_files import Listing


class FiguresWriter:
    """Writes one document's figures to a stream, page by page."""

    def __init__(self, out: BinaryIO, materials: Materials) -> None:
        self._archive = Archive(out)
        self._store = materials.store
        self._document = ""
        self._list = Listing("file", "page", "x0", "y0", "x1", "y1", "page_width", "page_height", "caption")

    def begin(self, manifest: Manifest, _status: DocumentStatus) -> None:
        self._document = manifest.document

    def page(self, result: PageResult) -> None:
        alternatives = captions(result.blocks)
        number = 0
        for index, block in enumerate(result.blocks):
            if block.figure is None:
                continue
            number += 1
            name = f"page-{result.page:06d}-figure-{number:02d}.png"
            try:
                data = self._store.get(keys.figure(self._document, block.figure))
            except NotFoundError:  # removed by hand: the list says where it was
                name = ""
            else:
                self._archive.write(name, _png(data), compress=False)
            box = block.boxes[0] if block.boxes else ("", "", "", "")
            caption = visible(alternatives.get(index, ""))
            self._list.add(name, result.page, *box, result.width_px or "", result.height_px or "", caption)

    def end(self) -> None:
        self._archive.write("figures.csv", self._list.bytes())
        self._archive.close()


def _png(jpeg: bytes) -> bytes:
    """Return a figure as a worker stored it (worker/imaging/figures.py) as PNG."""
    out = io.BytesIO()
    with PIL.Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
        picture.save(out, "PNG", compress_level=4)
    return out.getvalue()
