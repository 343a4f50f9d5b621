"""A copy of a PDF with invisible text: what it looks like, what programs find in it, what is refused."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pikepdf
import pytest
from pikepdf import Array, Dictionary, Name

from ocrfleet.errors import PermanentError
from ocrfleet.records.documents import Kind
from ocrfleet.records.pages import Block, PageStatus, Role
from tests.support.searchable_pdf import (
    LINES,
    SIZE,
    mupdf_pixels,
    mupdf_text,
    pdf_text,
    pdf_words,
    pdfium_text,
    picture,
    poppler_pixels,
    result,
    written,
)
from worker.formats.pdf.writer import DecryptedPdfWriter, KeepingPdfWriter, WebPdfWriter

EXPECTED = [word.replace("ﬁ", "fi") for line in LINES for word, _ in line]


def scan(
    pdf: pikepdf.Pdf,
    *,
    rotate: int = 0,
    crop: bool = False,
    origin: tuple[int, int] = (0, 0),
    unit: float | None = None,
    size: tuple[int, int] = SIZE,
    over: bytes = b"",
    **fonts: Any,
) -> None:
    """Add a page that shows the picture upright once it is cropped and turned; its content leaves its state unbalanced."""
    turned = picture(size=size).rotate(rotate, expand=True)
    file = io.BytesIO()
    turned.save(file, "JPEG")
    width, height = turned.size
    x, y = origin
    margin = 50 if crop else 0
    image = pikepdf.Stream(
        pdf,
        file.getvalue(),
        Type=Name.XObject,
        Subtype=Name.Image,
        Width=width,
        Height=height,
        ColorSpace=Name.DeviceGray,
        BitsPerComponent=8,
        Filter=Name.DCTDecode,
    )
    content = b"q q %d 0 0 %d %d %d cm /I Do Q 3 0 0 3 7 7 cm\n" % (width, height, x, y)
    page = Dictionary(
        Type=Name.Page,
        MediaBox=[x - margin, y - margin, x + width + margin, y + height + margin],
        Resources=Dictionary(XObject=Dictionary(I=image), Font=Dictionary(**fonts)),
        Contents=pikepdf.Stream(pdf, over + content),
    )
    if crop:
        page.CropBox = Array([x, y, x + width, y + height])
    if rotate:
        page.Rotate = rotate
    if unit:
        page.UserUnit = unit
    pdf.pages.append(pikepdf.Page(page))


def saved(pdf: pikepdf.Pdf, folder: Path, **options: Any) -> Path:
    path = folder / "scan.pdf"
    pdf.save(path, **options)
    return path


def helvetica(pdf: pikepdf.Pdf) -> pikepdf.Object:
    return pdf.make_indirect(Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica))


def streams(path: Path) -> set[str]:
    """Return the digests of all streams of a PDF, as they are in the file."""
    with pikepdf.open(path) as pdf:
        return {
            hashlib.sha256(entry.read_raw_bytes()).hexdigest()
            for entry in pdf.objects
            if isinstance(entry, pikepdf.Stream)
        }


def assert_same_but_for_text(original: Path, copy: Path, pages: int = 1) -> None:
    for page in range(pages):
        assert (mupdf_pixels(original, page) == mupdf_pixels(copy, page)).all()
        assert (poppler_pixels(original, page + 1) == poppler_pixels(copy, page + 1)).all()
    assert streams(original) <= streams(copy), "the original's streams are copied as they are"
    with pikepdf.open(copy) as pdf:
        assert pdf.check_pdf_syntax() == []


def test_words_are_where_they_are_on_the_page_as_displayed(tmp_path: Path) -> None:
    geometries: list[dict[str, Any]] = [
        {},
        {"rotate": 90},
        {"rotate": 180},
        {"rotate": 270, "crop": True, "origin": (-40, 90)},
        {"crop": True, "origin": (30, -70)},
        {"unit": 2.5, "rotate": 90},
    ]
    pdf = pikepdf.new()
    for geometry in geometries:
        scan(pdf, **geometry)
    original = saved(pdf, tmp_path)
    pages = len(geometries)

    copy = written([(original, Kind.PDF, pages)], [result(page=page) for page in range(1, pages + 1)], tmp_path)

    for page, geometry in enumerate(geometries, 1):
        found = pdf_words(copy, page)
        assert [text for text, _ in found] == EXPECTED, geometry
        for (_, box), (_, there) in zip(found, (word for line in LINES for word in line), strict=True):
            assert box == pytest.approx(there, abs=0.5), geometry
    assert_same_but_for_text(original, copy, pages=pages)


def test_programs_read_the_same_text_in_reading_order(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    copy = written([(saved(pdf, tmp_path), Kind.PDF, 1)], [result()], tmp_path)

    assert pdf_text(copy).split() == ["The", "first", "line", "über", "hyphenated", "words."], "poppler joins hyphens"
    assert mupdf_text(copy).split() == EXPECTED
    assert pdfium_text(copy).replace("\ufffe", "").split() == ["The", "first", "line", "über", "hyphenated", "words."]


def test_pages_of_several_sizes_keep_theirs_and_share_a_font(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    sizes = [(600, 800), (900, 400), (300, 300)]
    for size in sizes:
        scan(pdf, size=size)
    original = saved(pdf, tmp_path)
    half = [[(word, tuple(side / 2 for side in box)) for word, box in line] for line in LINES]

    copy = written(
        [(original, Kind.PDF, 3)],
        [
            result(page=1),
            # An image of the page at twice its size.
            result(page=2, size=(1800, 800)),
            result(half, page=3, size=(300, 300)),  # type: ignore[arg-type]
        ],
        tmp_path,
    )

    assert [text for text, _ in pdf_words(copy, 2)] == EXPECTED
    assert pdf_words(copy, 2)[0][1] == pytest.approx((30, 50, 55, 62), abs=0.5)
    assert pdf_words(copy, 3)[0][1] == pytest.approx((30, 50, 55, 62), abs=0.5)
    assert_same_but_for_text(original, copy, pages=3)
    with pikepdf.open(copy) as made:
        assert sum(entry.get("/FontFile2") is not None for entry in made.objects if isinstance(entry, Dictionary)) == 1


def test_pages_that_share_their_resources_have_their_own_texts(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    for _ in range(3):
        scan(pdf)
    shared = pdf.make_indirect(pdf.pages[0].Resources)
    for page in pdf.pages:
        del page.obj["/Resources"]
    pdf.Root.Pages.Resources = shared
    original = saved(pdf, tmp_path)

    results = [result([[(f"word{page}", (60, 100, 200, 124))]], page=page) for page in (1, 2, 3)]
    copy = written([(original, Kind.PDF, 3)], results, tmp_path)

    assert [pdf_words(copy, page)[0][0] for page in (1, 2, 3)] == ["word1", "word2", "word3"]
    assert_same_but_for_text(original, copy, pages=3)


SCRIPTS: dict[str, list[tuple[str, Any]]] = {
    "שלום עולם 1948": [("שלום", (500, 100, 560, 124)), ("עולם", (420, 100, 490, 124)), ("1948", (360, 100, 410, 124))],
    "مرحبا بالعالم": [("مرحبا", (500, 100, 560, 124)), ("بالعالم", (400, 100, 490, 124))],
    "日本語の本": [("日本語", (60, 100, 120, 124)), ("の本", (121, 100, 160, 124))],
    "\U0001d509raktur \U0001f600": [("\U0001d509raktur", (60, 100, 160, 124)), ("\U0001f600", (170, 100, 190, 124))],
    "été": [("e\u0301te\u0301", (60, 100, 160, 124))],
    "office flow": [("o\ufb03ce", (60, 100, 160, 124)), ("\ufb02ow", (170, 100, 230, 124))],
}


def test_scripts_and_signs_are_found_by_every_program(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    for _ in SCRIPTS:
        scan(pdf)
    results = [result([line], page=page) for page, line in enumerate(SCRIPTS.values(), 1)]
    copy = written([(saved(pdf, tmp_path), Kind.PDF, len(SCRIPTS))], results, tmp_path)

    for page, expected in enumerate(SCRIPTS):
        assert pdf_text(copy, "-f", str(page + 1), "-l", str(page + 1)).split() == expected.split()
        assert pdfium_text(copy, page).split() == expected.split()
        # MuPDF takes every line to begin at the left.
        assert sorted(mupdf_text(copy, page).split()) == sorted(expected.split())


def test_a_line_along_the_margin_is_turned_as_it_runs(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    scan(pdf)
    up, down = [(20, 500, 40, 600), (20, 380, 40, 490)], [(20, 380, 40, 480), (20, 490, 40, 600)]
    lines = [[list(zip(("Marginal", "note"), boxes, strict=True))] for boxes in (up, down)]
    results = [result(line, page=page) for page, line in enumerate(lines, 1)]
    copy = written([(saved(pdf, tmp_path), Kind.PDF, 2)], results, tmp_path)

    for page, boxes in enumerate((up, down)):
        found = dict(pdf_words(copy, page + 1))
        assert found["Marginal"] == pytest.approx(boxes[0], abs=0.5)
        assert found["note"] == pytest.approx(boxes[1], abs=0.5)
        assert pdfium_text(copy, page).split() == ["Marginal", "note"]


def test_words_without_a_place_lie_in_their_block_line_by_line(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    block = Block(label="text", role=Role.TEXT, boxes=((100, 300, 500, 400),), markdown="Nobody knows where\nthese are")
    copy = written([(saved(pdf, tmp_path), Kind.PDF, 1)], [result((), blocks=(block,), markdown=True)], tmp_path)

    found = pdf_words(copy)
    assert sorted(text for text, _ in found) == sorted(["Nobody", "knows", "where", "these", "are"])
    assert all(x0 >= 100 and x1 <= 501 and y0 >= 300 and y1 <= 400 for _, (x0, y0, x1, y1) in found)


def with_old_text(folder: Path) -> Path:
    """Return a PDF whose pages have old text: beside visible text, in a form, before visible text that goes on behind it."""
    pdf = pikepdf.new()
    old = b"BT 3 Tr /F 20 Tf 60 680 Td (0ld w0rds) Tj 0 -30 Td (m0re) ' ET\n"
    seen = b"BT 0 Tr /F 12 Tf 300 40 Td (Stamp) Tj ET\n"
    font = helvetica(pdf)
    scan(pdf, over=b"q " + old + b"Q " + seen, F=font)
    scan(pdf, over=seen + b"/Old Do\n", F=font)
    pdf.pages[1].Resources.XObject.Old = pikepdf.Stream(
        pdf,
        b"/Span <</ActualText (sp0ken)>> BDC " + old + b"EMC",
        Type=Name.XObject,
        Subtype=Name.Form,
        BBox=[0, 0, 600, 800],
        Resources=Dictionary(Font=Dictionary(F=font)),
    )
    scan(pdf, over=b"BT /F 20 Tf 60 680 Td 3 Tr (hidden ) Tj 0 Tr (seen) Tj ET\n", F=font)
    return saved(pdf, folder)


def test_an_old_invisible_text_is_replaced(tmp_path: Path) -> None:
    original = with_old_text(tmp_path)

    copy = written([(original, Kind.PDF, 3)], [result(page=page) for page in (1, 2, 3)], tmp_path)

    for page in (1, 2):
        words = {text for text, _ in pdf_words(copy, page)}
        assert {"Stamp", "line"} <= words
        assert not words & {"0ld", "m0re", "sp0ken"}
    assert {"hidden", "seen"} <= {text for text, _ in pdf_words(copy, 3)}, "visible text must not move"
    for page in range(3):
        assert (mupdf_pixels(original, page) == mupdf_pixels(copy, page)).all()
        assert (poppler_pixels(original, page + 1) == poppler_pixels(copy, page + 1)).all()


def test_an_old_invisible_text_is_kept_where_that_is_chosen(tmp_path: Path) -> None:
    original = with_old_text(tmp_path)

    copy = written(
        [(original, Kind.PDF, 3)], [result(page=page) for page in (1, 2, 3)], tmp_path, writer=KeepingPdfWriter
    )

    for page in (1, 2, 3):
        assert pdf_words(copy, page) == pdf_words(original, page)
    assert_same_but_for_text(original, copy, pages=3)


def test_words_that_the_page_shows_as_text_are_not_doubled(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    # The first line of the picture, as text.
    scan(pdf, over=b"BT /F 20 Tf 60 681 Td (The first line of it) Tj ET\n", F=helvetica(pdf))
    copy = written([(saved(pdf, tmp_path), Kind.PDF, 1)], [result()], tmp_path)

    words = [text for text, _ in pdf_words(copy)]
    assert words.count("first") == 1
    assert "über" in words


def test_outline_metadata_attachments_and_labels_are_kept(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    scan(pdf)
    with pdf.open_outline() as outline:
        outline.root.append(pikepdf.OutlineItem("Chapter", 1))
    with pdf.open_metadata() as metadata:
        metadata["dc:title"] = "A book"
    pdf.docinfo["/Author"] = "Somebody"
    pdf.attachments["note.txt"] = b"attached"
    pdf.Root.PageLabels = Dictionary(Nums=[0, Dictionary(S=Name.r)])
    original = saved(pdf, tmp_path)

    copy = written([(original, Kind.PDF, 2)], [result(page=1), result(page=2)], tmp_path)

    with pikepdf.open(copy) as made, pikepdf.open(original) as before:
        with made.open_outline() as outline:
            assert [item.title for item in outline.root] == ["Chapter"]
        assert made.Root.Metadata.read_raw_bytes() == before.Root.Metadata.read_raw_bytes()
        assert made.docinfo["/Author"] == "Somebody"
        assert made.attachments["note.txt"].get_file().read_bytes() == b"attached"
        assert made.pages[1].label == "ii"


def test_a_failed_page_and_one_that_has_its_own_text_are_left_alone(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    scan(pdf)
    original = saved(pdf, tmp_path)
    results = [result(page=1, status=PageStatus.FAILED), result(page=2, text_layer=True)]

    copy = written([(original, Kind.PDF, 2)], results, tmp_path)

    assert pdf_text(copy).split() == []
    assert_same_but_for_text(original, copy, pages=2)


def test_the_same_pages_give_the_same_bytes(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    original = saved(pdf, tmp_path)

    first = written([(original, Kind.PDF, 1)], [result()], tmp_path).read_bytes()
    second = written([(original, Kind.PDF, 1)], [result()], tmp_path).read_bytes()

    assert first == second


def test_a_pdf_for_the_web_is_linearised(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    copy = written([(saved(pdf, tmp_path), Kind.PDF, 1)], [result()], tmp_path, writer=WebPdfWriter)

    with pikepdf.open(copy) as made:
        assert made.is_linearized
        assert made.check_pdf_syntax() == []
    assert [text for text, _ in pdf_words(copy)] == EXPECTED


def test_an_encrypted_pdf_is_refused_unless_asked_for(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    original = saved(pdf, tmp_path, encryption=pikepdf.Encryption(owner="owner", user="secret"))

    with pytest.raises(PermanentError, match="ask for the format pdf-decrypted"):
        written([(original, Kind.PDF, 1)], [result()], tmp_path, passwords=("secret",))
    copy = written([(original, Kind.PDF, 1)], [result()], tmp_path, passwords=("secret",), writer=DecryptedPdfWriter)

    assert [text for text, _ in pdf_words(copy)] == EXPECTED


def test_a_signed_pdf_is_refused_and_one_with_an_empty_signature_field_is_not(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    field = pdf.make_indirect(Dictionary(FT=Name.Sig, T="Signature"))
    pdf.Root.AcroForm = Dictionary(Fields=[field], SigFlags=1)
    original = saved(pdf, tmp_path)
    assert pdf_words(written([(original, Kind.PDF, 1)], [result()], tmp_path))

    field.V = Dictionary(Type=Name.Sig, ByteRange=[0, 1, 2, 3], Contents=b"...")
    original = saved(pdf, tmp_path)

    with pytest.raises(PermanentError, match="signed"):
        written([(original, Kind.PDF, 1)], [result()], tmp_path)


def test_the_text_is_a_small_part_of_a_scan(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    for page in range(20):
        scan(pdf, size=(600, 800 + page))
    original = saved(pdf, tmp_path)

    copy = written([(original, Kind.PDF, 20)], [result(page=page) for page in range(1, 21)], tmp_path)

    text = sum(len(word) for line in LINES for word, _ in line)
    assert copy.stat().st_size - original.stat().st_size < 20 * (700 + 10 * text) + 3000
