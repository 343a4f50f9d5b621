"""PDF/A-2b: what a copy gets, what it keeps, and what is refused.

No public validator can be installed from the registries that the tests use; these are the rules that the program checks itself.
"""

from __future__ import annotations

from pathlib import Path

import pikepdf
import pytest
from pikepdf import Array, Dictionary, Name

from ocrfleet.errors import PermanentError
from ocrfleet.records.documents import Kind
from tests.support.searchable_pdf import mupdf_pixels, pdf_words, picture, result, written
from tests.unit.worker.formats.pdf.test_searchable_pdf import EXPECTED, helvetica, saved, scan, streams
from worker.formats.pdf.archival import conform
from worker.formats.pdf.writer import ArchivalPdfWriter


def archived(pdf: pikepdf.Pdf, folder: Path) -> Path:
    return written([(saved(pdf, folder), Kind.PDF, len(pdf.pages))], [result()], folder, writer=ArchivalPdfWriter)


def assert_conforms(path: Path) -> None:
    """Assert the rules of ISO 19005-2 for the file, its metadata, its colours, and the font of the invisible text."""
    data = path.read_bytes()
    assert data.startswith(b"%PDF-1.")
    assert max(data.split(b"\n", 2)[1][1:5]) > 127
    with pikepdf.open(path) as pdf:
        assert not pdf.is_encrypted
        assert len(pdf.trailer.ID) == 2
        assert "/Filter" not in pdf.Root.Metadata
        with pdf.open_metadata() as metadata:
            assert (metadata["pdfaid:part"], metadata["pdfaid:conformance"]) == ("2", "B")
            assert metadata.pdfa_status == "2B"
        (intent,) = pdf.Root.OutputIntents
        assert intent.S == Name.GTS_PDFA1
        assert intent.DestOutputProfile.read_bytes()[36:40] == b"acsp"
        for page in pdf.pages:
            assert "/Resources" in page.obj
        fonts = [entry for entry in pdf.objects if isinstance(entry, Dictionary) and "/DescendantFonts" in entry]
        assert fonts
        for font in fonts:
            assert "/FontFile2" in font.DescendantFonts[0].FontDescriptor
            assert "/CIDToGIDMap" in font.DescendantFonts[0]
            assert "/ToUnicode" in font


def test_a_scanned_pdf_becomes_pdf_a_with_the_same_images_and_text(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    with pdf.open_metadata() as metadata:
        metadata["prism:issn"] = "0000-0000"
    pdf.docinfo["/Title"] = "Herring"
    copy = archived(pdf, tmp_path)

    assert_conforms(copy)
    assert [text for text, _ in pdf_words(copy)] == EXPECTED
    assert (mupdf_pixels(copy, 0) == mupdf_pixels(tmp_path / "scan.pdf", 0)).all()
    with pikepdf.open(copy) as made, made.open_metadata() as metadata:
        assert metadata["dc:title"] == "Herring"
        assert "prism:issn" not in metadata, "its schema is not described"
    first = copy.read_bytes()
    again = written([(tmp_path / "scan.pdf", Kind.PDF, 1)], [result()], tmp_path, writer=ArchivalPdfWriter)
    assert again.read_bytes() == first, "no date of its making"


def test_page_images_become_pdf_a(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    picture().save(path, "JPEG")
    made = written([(path, Kind.JPEG, 1)], [result()], tmp_path, writer=ArchivalPdfWriter)

    assert_conforms(made)
    assert path.read_bytes() in made.read_bytes()


def test_resources_that_a_page_inherits_become_its_own(tmp_path: Path) -> None:
    pdf = pikepdf.new()
    scan(pdf)
    pdf.Root.Pages.Resources = pdf.pages[0].obj.Resources
    del pdf.pages[0].obj.Resources

    assert_conforms(archived(pdf, tmp_path))
    assert streams(tmp_path / "scan.pdf") <= streams(tmp_path / "scan.searchable.pdf")


def test_what_is_so_by_default_is_said_and_a_wish_is_left_out() -> None:
    pdf = pikepdf.new()
    scan(pdf)
    page = pdf.pages[0]
    page.Resources.XObject.I.Interpolate = True
    page.Annots = Array([Dictionary(Type=Name.Annot, Subtype=Name.Link, Rect=[0, 0, 9, 9])])
    own = Dictionary(
        Type=Name.Font, Subtype=Name.CIDFontType2, FontDescriptor=Dictionary(FontFile2=pdf.make_stream(b"glyphs"))
    )
    page.Resources.Font = Dictionary(F=Dictionary(Type=Name.Font, Subtype=Name.Type0, DescendantFonts=Array([own])))

    conform(pdf)

    assert page.Annots[0].F == 4
    assert "/Interpolate" not in page.Resources.XObject.I
    assert page.Resources.Font.F.DescendantFonts[0].CIDToGIDMap == Name.Identity


def test_what_only_re_encoding_could_change_is_refused(tmp_path: Path) -> None:
    def font(pdf: pikepdf.Pdf) -> None:
        scan(pdf, F=helvetica(pdf), over=b"BT /F 9 Tf 9 9 Td (seen) Tj ET\n")

    def cmyk(pdf: pikepdf.Pdf) -> None:
        scan(pdf, over=b"0 0 0 1 k 0 0 9 9 re f\n")

    def script(pdf: pikepdf.Pdf) -> None:
        scan(pdf)
        pdf.Root.OpenAction = Dictionary(S=Name.JavaScript, JS="app.beep()")

    def attachment(pdf: pikepdf.Pdf) -> None:
        scan(pdf)
        pdf.attachments["a.txt"] = b"attached"

    def lzw(pdf: pikepdf.Pdf) -> None:
        scan(pdf)
        pdf.pages[0].Resources.XObject.Other = pikepdf.Stream(
            pdf, b"\x80\x0b\x60\x50\x22\x0c\x0c\x85\x01", Filter=Name.LZWDecode
        )

    def note(pdf: pikepdf.Pdf) -> None:
        scan(pdf)
        pdf.pages[0].Annots = Array([Dictionary(Type=Name.Annot, Subtype=Name.Text, Rect=[0, 0, 9, 9], Contents="?")])

    def printer(pdf: pikepdf.Pdf) -> None:
        scan(pdf)
        pdf.pages[0].Resources.ExtGState = Dictionary(G=Dictionary(Type=Name.ExtGState, TR=Name.Identity))

    cases = {
        "font Helvetica is not embedded": font,
        "CMYK": cmyk,
        "scripts": script,
        "attachments": attachment,
        "LZW": lzw,
        "page 1 has an annotation": note,
        "for a printer": printer,
    }
    for reason, made in cases.items():
        pdf = pikepdf.new()
        made(pdf)
        with pytest.raises(PermanentError, match=reason):
            conform(pdf)
    pdf = pikepdf.new()
    font(pdf)
    with pytest.raises(PermanentError, match="not embedded"):
        archived(pdf, tmp_path)
