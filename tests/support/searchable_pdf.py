"""Searchable PDFs in tests: pages drawn with boxes for words, records of such pages, and the PDF that is made of both."""

from __future__ import annotations

import hashlib
import importlib
import io
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pymupdf
from PIL import Image, ImageDraw

from ocrfleet.records.documents import DocumentStatus, Kind, Manifest, Source
from ocrfleet.records.pages import PageResult, PageStatus, Word
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import Sources, uri_of
from ocrfleet.storage.store import FolderStore
from tests.support.servers import lacking
from worker.formats.materials import Materials
from worker.formats.pdf.writer import PdfWriter

Box = tuple[float, float, float, float]
#: Words and boxes of a page of 600 x 800 pixels, line by line.
LINES: tuple[tuple[tuple[str, Box], ...], ...] = (
    (("The", (60, 100, 110, 124)), ("ﬁrst", (122, 100, 180, 124)), ("line", (192, 100, 240, 124))),
    (("über", (60, 140, 120, 164)), ("hyphen-", (132, 140, 240, 164))),
    (("ated", (60, 180, 110, 204)), ("words.", (122, 180, 210, 204))),
)
SIZE = (600, 800)


def picture(lines: Sequence[Sequence[tuple[str, Box]]] = LINES, size: tuple[int, int] = SIZE, mode: str = "L") -> Any:
    """Return an image with a dark box for each word, and a mark that shows its orientation."""
    image = Image.new(mode, size, 255 if mode in ("1", "L") else (255, 250, 240))
    draw = ImageDraw.Draw(image)
    for line in lines:
        for _, box in line:
            draw.rectangle(box, fill=0 if mode in ("1", "L") else (20, 20, 60))
    draw.ellipse((size[0] - 60, 20, size[0] - 20, 60), fill=0 if mode in ("1", "L") else (200, 0, 0))
    return image


def result(
    lines: Sequence[Sequence[tuple[str, Box]]] = LINES,
    *,
    page: int = 1,
    size: tuple[int, int] = SIZE,
    **fields: Any,
) -> PageResult:
    """Return a page's record with these words; x and y of their boxes in pixels of the page as displayed."""
    words = tuple(Word(text, box, 0.9, number) for number, line in enumerate(lines) for text, box in line)
    known = {"status": PageStatus.DONE, "width_px": size[0], "height_px": size[1], "words": words} | fields
    text = "\n".join(" ".join(word for word, _ in line) for line in lines)
    return PageResult(page=page, profile="p", engine="e", model="m", revision="r", text=text, **known)


def written(
    sources: Sequence[tuple[Path, Kind, int]],
    results: Iterable[PageResult],
    folder: Path,
    *,
    writer: type[PdfWriter] = PdfWriter,
    passwords: tuple[str, ...] = (),
) -> Path:
    """Return the path of the searchable PDF of sources (path, kind, pages) and their pages' records."""
    registered = tuple(
        Source(
            uri=uri_of(path),
            size=path.stat().st_size,
            mtime_ns=path.stat().st_mtime_ns,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            kind=kind,
            pages=pages,
        )
        for path, kind, pages in sources
    )
    total = sum(source.pages for source in registered)
    manifest = Manifest(
        document="0123456789abcdef" * 2,
        created="20261130T120000.000000Z",
        profile="p",
        profile_digest="ab" * 32,
        sources=registered,
        selection=((1, total),),
    )
    store = FolderStore(folder / "store")
    settings = Settings(store=str(folder / "store"), cache=folder / "cache")
    materials = Materials(store=store, sources=Sources(settings, store), passwords=passwords, memory=1 << 30)
    target = folder / f"{sources[0][0].stem}.searchable.pdf"
    with target.open("w+b") as out:
        made = writer(out, materials)
        made.begin(manifest, DocumentStatus.COMPLETED)
        for page in results:
            made.page(page)
        made.end()
    return target


def pdf_words(path: Path, page: int = 1) -> list[tuple[str, Box]]:
    """Return the words of a page as poppler finds them, boxes in points of the page as displayed."""
    command = ["pdftotext", "-bbox", "-cropbox", "-f", str(page), "-l", str(page), str(path), "-"]
    found = _poppler(*command).decode()
    words = re.findall(r'<word xMin="([^"]*)" yMin="([^"]*)" xMax="([^"]*)" yMax="([^"]*)">(.*?)</word>', found)
    return [(unescape(text), (float(a), float(b), float(c), float(d))) for a, b, c, d, text in words]


def pdf_text(path: Path, *options: str) -> str:
    """Return the text of a PDF as poppler reads it, without marks of direction."""
    found = _poppler("pdftotext", *options, str(path), "-").decode()
    return re.sub("[\u200e\u200f\u202a-\u202e\u2066-\u2069]", "", found)


def mupdf_text(path: Path, page: int = 0) -> str:
    with pymupdf.open(path) as document:
        return str(document[page].get_text())


def pdfium_text(path: Path, page: int = 0) -> str:
    """Return a page's text as PDFium, the reader of Chromium, finds it; a hyphen at a line's end joins the word."""
    pypdfium2: Any = importlib.import_module("pypdfium2")
    document = pypdfium2.PdfDocument(path)
    try:
        return str(document[page].get_textpage().get_text_range()).replace("\ufffe", "")
    finally:
        document.close()


def mupdf_pixels(path: Path, page: int = 0) -> Any:
    """Return a page as MuPDF draws it: uint8, shape (height, width, 3)."""
    with pymupdf.open(path) as document:
        pixmap = document[page].get_pixmap(dpi=72, annots=True)
        return np.frombuffer(pixmap.samples, np.uint8).reshape(pixmap.height, pixmap.width, pixmap.n)


def poppler_pixels(path: Path, page: int = 1) -> Any:
    """Return a page as poppler draws it."""
    command = ["pdftoppm", "-r", "72", "-f", str(page), "-l", str(page), "-cropbox", str(path)]
    drawn = _poppler(*command)
    return np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB"))


def _poppler(*command: str) -> bytes:
    if shutil.which(command[0]) is None:
        lacking("poppler-utils")
    return subprocess.run(command, capture_output=True, check=True).stdout
