"""A PDF of page images: the same bytes where a PDF can hold them, the same pixels always."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pikepdf
import pymupdf
import pytest
from PIL import Image

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.documents import Kind
from ocrfleet.records.pages import PageStatus
from tests.support.searchable_pdf import LINES, SIZE, pdf_text, pdf_words, picture, result, written
from worker.formats.pdf.writer import PdfWriter, WebPdfWriter

EXPECTED = [word.replace("ﬁ", "fi") for line in LINES for word, _ in line]


def image(folder: Path, name: str, made: Any, **options: Any) -> Path:
    path = folder / name
    made.save(path, **options)
    return path


def raw(path: Path, page: int = 0) -> bytes:
    with pikepdf.open(path) as pdf:
        return bytes(pdf.pages[page].Resources.XObject.I.read_raw_bytes())


def pixels(path: Path, page: int = 0, size: tuple[int, int] = SIZE) -> Any:
    """Return the page as MuPDF draws it, with a pixel for each of the image's."""
    with pymupdf.open(path) as document:
        rect = document[page].rect
        matrix = pymupdf.Matrix(size[0] / rect.width, size[1] / rect.height)
        drawn = document[page].get_pixmap(matrix=matrix)
        return np.frombuffer(drawn.samples, np.uint8).reshape(drawn.height, drawn.width, drawn.n)


def files(folder: Path) -> list[tuple[Path, Kind, int]]:
    """Return a book of page images in every format, each page the same picture."""
    grey, colour, bilevel = picture(), picture(mode="RGB"), picture(mode="1")
    transparent = colour.convert("RGBA")
    made = [
        (image(folder, "a.jpg", colour, quality=95), Kind.JPEG),
        (image(folder, "b.jpg", grey, progressive=True, quality=95), Kind.JPEG),
        (image(folder, "c.jpg", colour.convert("CMYK"), quality=95), Kind.JPEG),
        (image(folder, "d.jp2", colour, irreversible=False), Kind.JPEG2000),
        (image(folder, "e.tif", bilevel, compression="group4"), Kind.TIFF),
        (image(folder, "f.png", colour), Kind.PNG),
        (image(folder, "g.png", colour.quantize(16)), Kind.PNG),
        (image(folder, "h.png", transparent), Kind.PNG),
        (image(folder, "i.png", Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)), Kind.PNG),
        (image(folder, "j.tif", colour, compression="tiff_lzw"), Kind.TIFF),
        (image(folder, "k.webp", colour, lossless=True), Kind.WEBP),
        (image(folder, "l.bmp", grey), Kind.BMP),
        (image(folder, "m.tif", colour.convert("CMYK")), Kind.TIFF),
        (image(folder, "n.png", bilevel), Kind.PNG),
    ]
    return [(path, kind, 1) for path, kind in made]


def test_images_of_every_format_look_the_same_and_have_their_words(tmp_path: Path) -> None:
    sources = files(tmp_path)
    results = [result(page=page) for page in range(1, len(sources) + 1)]

    made = written(sources, results, tmp_path)

    with pikepdf.open(made) as pdf:
        assert pdf.check_pdf_syntax() == []
        assert len(pdf.pages) == len(sources)
    for page, (path, kind, _) in enumerate(sources):
        with Image.open(path) as source:
            mode = source.mode
            seen = np.asarray(source.convert("RGB"))
        if mode != "I;16":
            # Another program decodes CMYK and JPEG, and rounds otherwise.
            tolerance = 15 if mode == "CMYK" else 1 if kind is Kind.JPEG else 0
            assert np.abs(pixels(made, page).astype(int) - seen).mean() <= tolerance, path.name
        assert [text for text, _ in pdf_words(made, page + 1)] == EXPECTED, path.name


def test_jpeg_jpeg_2000_and_g4_are_the_same_bytes(tmp_path: Path) -> None:
    sources = [source for source in files(tmp_path) if source[0].name in {"a.jpg", "d.jp2", "e.tif", "f.png"}]
    made = written(sources, [result(page=page) for page in (1, 2, 3, 4)], tmp_path)

    assert raw(made, 0) == (tmp_path / "a.jpg").read_bytes()
    assert raw(made, 1) == (tmp_path / "d.jp2").read_bytes()
    assert raw(made, 2) in (tmp_path / "e.tif").read_bytes()
    assert raw(made, 3) in (tmp_path / "f.png").read_bytes()
    assert made.stat().st_size <= 1.05 * sum(path.stat().st_size for path, *_ in sources) + 8000


@pytest.mark.parametrize("photometric", [0, 1])
def test_g4_keeps_black_and_white_apart(photometric: int, tmp_path: Path) -> None:
    path = image(tmp_path, "page.tif", picture(mode="1"), compression="group4", tiffinfo={262: photometric})
    made = written([(path, Kind.TIFF, 1)], [result()], tmp_path)

    with Image.open(path) as source:
        assert (pixels(made) == np.asarray(source.convert("RGB"))).all()


def test_pictures_are_turned_upright_as_their_files_say(tmp_path: Path) -> None:
    sources = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        # A picture whose pixels lie in another way, with the tag that turns them back.
        turns = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
        turn = turns[orientation]
        lying = picture() if turn is None else picture().transpose(Image.Transpose(turn))
        sources.append((image(tmp_path, f"{orientation}.jpg", lying, exif=exif, quality=95), Kind.JPEG, 1))

    made = written(sources, [result(page=page) for page in range(1, 9)], tmp_path)

    upright = np.asarray(picture().convert("RGB")).astype(int)
    for page in range(8):
        assert np.abs(pixels(made, page).astype(int) - upright).mean() < 1.0, f"orientation {page + 1}"


def test_frames_of_a_tiff_are_pages(tmp_path: Path) -> None:
    path = tmp_path / "book.tif"
    frames = [picture(mode="1") for _ in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], compression="group4")

    made = written(
        [(path, Kind.TIFF, 3)], [result([[(f"page{n}", (60, 100, 200, 124))]], page=n) for n in (1, 2, 3)], tmp_path
    )

    assert pdf_text(made).split() == ["page1", "page2", "page3"]


def test_a_page_that_cannot_be_read_keeps_its_place(tmp_path: Path) -> None:
    good = image(tmp_path, "1.png", picture())
    torn = tmp_path / "2.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\n" + b"no picture")
    sources = [(good, Kind.PNG, 1), (torn, Kind.PNG, 1), (good, Kind.PNG, 1)]
    failed = result((), page=2, status=PageStatus.FAILED, reason=Reason.UNREADABLE, detail="damaged")

    made = written(sources, [result(page=1), failed, result(page=3)], tmp_path)

    assert "Page 2 is missing" in pdf_text(made, "-f", "2", "-l", "2")
    assert [text for text, _ in pdf_words(made, 3)] == EXPECTED

    with pytest.raises(PermanentError, match="page 2"):
        written(sources, [result(page=page) for page in (1, 2, 3)], tmp_path)


def test_page_images_are_linearised_for_the_web(tmp_path: Path) -> None:
    path = image(tmp_path, "page.jpg", picture())
    made = written([(path, Kind.JPEG, 1)], [result(width_pt=300.0, height_pt=400.0)], tmp_path, writer=WebPdfWriter)

    with pikepdf.open(made) as pdf:
        assert pdf.is_linearized
        assert [float(side) for side in pdf.pages[0].MediaBox] == [0, 0, 300, 400]
    assert raw(made) == path.read_bytes()
    assert [text for text, _ in pdf_words(made)] == EXPECTED


def test_a_huge_sheet_has_its_size_by_a_unit(tmp_path: Path) -> None:
    path = image(tmp_path, "map.png", picture())
    made = written([(path, Kind.PNG, 1)], [result(width_pt=15000.0, height_pt=20000.0)], tmp_path, writer=PdfWriter)

    with pikepdf.open(made) as pdf:
        assert float(pdf.pages[0].MediaBox[3]) * float(pdf.pages[0].UserUnit) == pytest.approx(20000)
    assert io.BytesIO(raw(made)).getvalue()


def test_an_image_that_was_read_in_spite_of_its_damage_is_in_the_pdf(tmp_path: Path) -> None:
    path = image(tmp_path, "page.png", picture())
    data = bytearray(path.read_bytes())
    # The checksum of its header: Pillow refuses that, and rendering reads on.
    data[29] ^= 0xFF
    path.write_bytes(bytes(data))

    made = written([(path, Kind.PNG, 1)], [result()], tmp_path)

    assert (pixels(made) == np.asarray(picture().convert("RGB"))).all()
