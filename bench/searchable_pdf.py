"""Searchable PDFs compared with OCRmyPDF, for the same pages and words: word boxes, sizes, seconds without recognition.

    python -m bench.searchable_pdf [--pages 20] [--corpus DIR]

Drawn pages have words with known boxes. Both programs get these words, so that neither runs OCR; poppler (pdftotext -bbox) then
extracts the word boxes. With a corpus, the CPU engine reads its scans first, and the text of the PDF is compared with the text of
the engine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pikepdf
import pymupdf
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.records.documents import Kind
from ocrfleet.records.pages import PageResult
from tests.support.searchable_pdf import Box, mupdf_pixels, pdf_text, pdf_words, poppler_pixels, result, written
from worker.formats.page_layout import page_layout

_SIZE, _DPI = (1654, 2339), 200
_TEXT = [
    "The",
    "archive",
    "holds",
    "letters,",
    "bills",
    "and",
    "minutes",
    "of",
    "the",
    "years",
    "from",
    "1790",
    "to",
    "1912;",
    "most",
    "of",
    "them",
    "were",
    "bound",
    "in",
    "volumes,",
    "quarterly,",
    "by",
    "hands",
    "that",
    "nobody",
    "knows.",
    "Jagged",
    "typography",
    "gives",
    "OCR",
    "engines",
    "grief.",
    "Überschriften,",
    "façades,",
    "naïveté.",
]
#: Scans of the corpus without a text layer, and their pages.
_SCANS = (
    ("ccitt.pdf", Kind.PDF),
    ("scan-modern.pdf", Kind.PDF),
    ("rotated-90.pdf", Kind.PDF),
    ("gt-lorem-scan.pdf", Kind.PDF),
    ("jbig2.pdf", Kind.PDF),
    ("gt-eurotext.tif", Kind.TIFF),
    ("typewriter.png", Kind.PNG),
    ("gt-french-18c.tif", Kind.TIFF),
    ("maths-scan.jpg", Kind.JPEG),
)


def drawn(number: int) -> tuple[Any, list[list[tuple[str, Box]]]]:
    """Return a page image, and the words of each line with the boxes of their ink."""
    image = Image.new("L", _SIZE, 255)
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype("DejaVuSerif.ttf", 28 + number % 5)
    lines, word, y = [], number, 160
    while y < _SIZE[1] - 200:
        line: list[tuple[str, Box]] = []
        x = 150.0
        while True:
            text = _TEXT[word % len(_TEXT)]
            box = draw.textbbox((x, y), text, font=font)
            if box[2] > _SIZE[0] - 150:
                break
            draw.text((x, y), text, font=font, fill=0)
            line.append((text, box))
            x = box[2] + font.getlength(" ")
            word += 1
        lines.append(line)
        y += 52
    return image, lines


def iou(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    common = max(across, 0) * max(down, 0)
    return common / (sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - common)


def places(path: Path, page: int, lines: list[list[tuple[str, Box]]]) -> tuple[float, float, float]:
    """Return the mean overlap (IoU) with the true boxes, the same in x only, and the share of words found."""
    scale = _DPI / 72
    waiting: dict[str, list[Box]] = {}
    for text, (x0, y0, x1, y1) in pdf_words(path, page):
        waiting.setdefault(text, []).append((x0 * scale, y0 * scale, x1 * scale, y1 * scale))
    overlaps, across = [], []
    words = [word for line in lines for word in line]
    for text, box in words:
        found = waiting.get(text)
        if found:
            best = max(found, key=lambda there: iou(there, box))
            overlaps.append(iou(best, box))
            across.append(iou((best[0], 0, best[2], 1), (box[0], 0, box[2], 1)))
    return sum(overlaps) / len(words), sum(across) / len(words), len(overlaps) / len(words)


def side_by_side(pages: int, folder: Path) -> None:
    original, truth = folder / "drawn.pdf", []
    results, every = [], []
    with pikepdf.new() as pdf:
        for number in range(pages):
            image, lines = drawn(number)
            file = folder / "page.jpg"
            image.save(file, quality=85)
            page = pdf.add_blank_page(page_size=(_SIZE[0] / _DPI * 72, _SIZE[1] / _DPI * 72))
            page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(I=_jpeg(pdf, file)))
            width, height = (float(side) for side in list(page.MediaBox)[2:])
            page.Contents = pikepdf.Stream(pdf, f"q {width} 0 0 {height} 0 0 cm /I Do Q".encode())
            every.append(lines)
            results.append(result(lines, page=number + 1, size=_SIZE))
            truth.append(results[-1].model_dump(mode="json"))
        pdf.save(original)
    (folder / "truth.json").write_text(json.dumps(truth))

    begun = time.perf_counter()
    ours = written([(original, Kind.PDF, pages)], results, folder)
    our_seconds = time.perf_counter() - begun
    theirs = folder / "ocrmypdf.pdf"
    command = [
        sys.executable,
        "-m",
        "ocrmypdf",
        "--plugin",
        "bench.truth_engine",
        "--jobs",
        "1",
        "--output-type",
        "pdf",
    ]
    begun = time.perf_counter()
    subprocess.run(
        [*command, "--optimize", "0", "--quiet", str(original), str(theirs)],
        check=True,
        env=os.environ | {"OCRFLEET_BENCH_TRUTH": str(folder / "truth.json")},
    )
    their_seconds = time.perf_counter() - begun

    print(f"{pages} drawn pages, same words for both programs; {original.stat().st_size:,} bytes")
    print(f"{'':10} {'IoU':>6} {'across':>7} {'found':>6} {'bytes':>12} {'growth':>7} {'s/page':>7}")
    for name, path, seconds in (("ocrfleet", ours, our_seconds), ("OCRmyPDF", theirs, their_seconds)):
        found = [places(path, page, lines) for page, lines in enumerate(every, 1)]
        overlap, across, share = (sum(column) / pages for column in zip(*found, strict=True))
        size = path.stat().st_size
        growth = size / original.stat().st_size - 1
        print(f"{name:10} {overlap:6.3f} {across:7.3f} {share:6.3f} {size:12,} {growth:+7.1%} {seconds / pages:7.3f}")
    print(f"ratio of seconds: {their_seconds / our_seconds:.1f}")


def _jpeg(pdf: pikepdf.Pdf, path: Path) -> pikepdf.Stream:
    return pikepdf.Stream(
        pdf,
        path.read_bytes(),
        Type=pikepdf.Name.XObject,
        Subtype=pikepdf.Name.Image,
        Width=_SIZE[0],
        Height=_SIZE[1],
        ColorSpace=pikepdf.Name.DeviceGray,
        BitsPerComponent=8,
        Filter=pikepdf.Name.DCTDecode,
    )


def scans(corpus: Path, folder: Path) -> None:
    """Read scans with the CPU engine, and compare the text of the PDF with the recognised text."""
    print(f"{'':20} {'F1':>6} {'in place':>8} {'growth':>7} {'same pixels':>12} {'qpdf':>5}")
    with subprocess.Popen(
        [sys.executable, "-m", "worker.read_image"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for name, kind in _SCANS:
            source = corpus / "files" / name
            reader.stdin.write(json.dumps({"path": str(source)}) + "\n")
            reader.stdin.flush()
            read = PageResult.model_validate(json.loads(reader.stdout.readline())["page"])
            pages = 1
            if kind is Kind.PDF:
                with pikepdf.open(source) as pdf:
                    pages = len(pdf.pages)
            made = written([(source, kind, pages)], [read], folder)
            found = pdf_words(made)
            same = "-"
            if kind is Kind.PDF:
                equal = (mupdf_pixels(source) == mupdf_pixels(made)).all() and (
                    poppler_pixels(source) == poppler_pixels(made)
                ).all()
                same = "yes" if equal else "NO"
            with pikepdf.open(made) as pdf:
                clean = "clean" if not pdf.check_pdf_syntax() else "NO"
            growth = made.stat().st_size / source.stat().st_size - 1
            text = pdf_text(made, "-raw", "-l", "1").replace("-\n", "- ")
            print(
                f"{name:20} {_f1(text, read.text):6.3f} {_in_place(made, found, read):8.3f} {growth:+7.1%} {same:>12} {clean:>5}"
            )
        reader.stdin.close()


def _f1(one: str, other: str) -> float:
    counts = [Counter(unicodedata.normalize("NFKC", text).split()) for text in (one, other)]
    common = sum((counts[0] & counts[1]).values())
    return 2 * common / max(1, sum(counts[0].values()) + sum(counts[1].values()))


def _in_place(path: Path, found: list[tuple[str, Box]], read: PageResult) -> float:
    """Return the share of the engine's words that poppler finds within half a line height of their place."""
    with pymupdf.open(path) as document:
        rect = document[0].rect
    across, down = (read.width_px or 1) / rect.width, (read.height_px or 1) / rect.height
    middles: dict[str, list[tuple[float, float]]] = {}
    for text, (x0, y0, x1, y1) in found:
        key = unicodedata.normalize("NFKC", text)
        middles.setdefault(key, []).append(((x0 + x1) / 2 * across, (y0 + y1) / 2 * down))
    good = total = 0
    for block in page_layout(read):
        for line in block.lines:
            half = min(line.box[3] - line.box[1], line.box[2] - line.box[0]) / 2
            for word in line.words:
                total += 1
                x, y = (word.box[0] + word.box[2]) / 2, (word.box[1] + word.box[3]) / 2
                near = middles.get(unicodedata.normalize("NFKC", word.text), ())
                good += any(abs(a - x) <= half and abs(b - y) <= half for a, b in near)
    return good / max(1, total)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pages", type=int, default=20, help="drawn pages (%(default)s)")
    parser.add_argument("--corpus", type=Path, help="folder of the corpus; none: drawn pages only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ocrfleet-bench-") as folder:
        side_by_side(arguments.pages, Path(folder))
        if arguments.corpus is not None:
            scans(arguments.corpus, Path(folder))


if __name__ == "__main__":
    main()
