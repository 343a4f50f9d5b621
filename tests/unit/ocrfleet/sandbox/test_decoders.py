"""Decoders: the format of a file, its number of pages, or the reason why it can't be read."""

from __future__ import annotations

import io
import os
import struct
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pymupdf
import pytest
from PIL import Image

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.documents import Kind
from ocrfleet.sandbox import limits, tiff
from ocrfleet.sandbox.decoders import open_document
from ocrfleet.sandbox.image_files import ImageDocument
from ocrfleet.sandbox.mapped_file import MappedFile
from ocrfleet.sandbox.pdf import PdfDocument
from ocrfleet.sandbox.sniff import SNIFF_BYTES, sniff
from tests.support.growth import assert_grows_linearly

if TYPE_CHECKING:
    from pathlib import Path

#: pymupdf's own names for these, which type checkers don't see.
PDF_ENCRYPT_RC4_128, PDF_ENCRYPT_AES_256 = 3, 5
NO_PAGES = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\ntrailer<</Root 1 0 R>>"
)


def encoded(image_format: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (40, 30)).save(buffer, image_format, **options)
    return buffer.getvalue()


def pages(path: Path, kind: Kind, passwords: list[str] | None = None) -> int:
    with path.open("rb") as file, closing(open_document(file.fileno(), kind, passwords or [])) as document:
        return document.pages


def problem(path: Path, kind: Kind, passwords: list[str] | None = None) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        pages(path, kind, passwords)
    return caught.value


def write_pdf(path: Path, count: int = 1, **options: Any) -> Path:
    with pymupdf.open() as pdf:
        for _ in range(count):
            pdf.new_page()
        pdf.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"%PDF-1.7\n", Kind.PDF),
        (b"\x00" * 1019 + b"%PDF-", Kind.PDF),
        (b"\x00" * 1020 + b"%PDF-", None),
        (encoded("PNG"), Kind.PNG),
        (encoded("JPEG"), Kind.JPEG),
        (encoded("JPEG", comment=b"%PDF-1.7"), Kind.JPEG),
        (encoded("TIFF"), Kind.TIFF),
        (b"MM\x00*\x00\x00\x00\x08", Kind.TIFF),
        (encoded("TIFF", big_tiff=True), Kind.TIFF),
        (encoded("WEBP"), Kind.WEBP),
        (encoded("BMP"), Kind.BMP),
        (b"BMW is a maker of motor cars", None),
        (encoded("JPEG2000"), Kind.JPEG2000),
        (encoded("JPEG2000", no_jp2=True), Kind.JPEG2000),
        (b"", None),
        (b"<html>", None),
    ],
)
def test_the_format_is_recognised_by_its_bytes(head: bytes, kind: Kind | None) -> None:
    assert sniff(head[:SNIFF_BYTES]) == kind


def test_a_pdf_gives_its_pages(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "three.pdf", 3)
    with path.open("rb") as file:
        document = open_document(file.fileno(), Kind.PDF)
    # The descriptor may be closed: the document has its own.
    with closing(document):
        assert isinstance(document, PdfDocument)
        assert document.pages == 3
        assert document.page(2).number == 2
        with pytest.raises(PermanentError) as caught:
            document.page(3)
    assert (caught.value.reason, caught.value.detail) == (
        Reason.NO_SUCH_PAGES,
        "the file has 3 pages, none with number 4",
    )


def test_opening_leaves_the_files_position_alone(tmp_path: Path) -> None:
    with write_pdf(tmp_path / "one.pdf").open("rb") as file:
        open_document(file.fileno(), Kind.PDF).close()
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0


def test_an_encrypted_pdf_needs_a_password_that_no_error_contains(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "locked.pdf", encryption=PDF_ENCRYPT_AES_256, user_pw="sesame", owner_pw="hunter2")
    missing, wrong = problem(path, Kind.PDF), problem(path, Kind.PDF, ["abracadabra"])
    assert missing.reason == wrong.reason == Reason.NEEDS_PASSWORD
    assert missing.detail == "the PDF needs a password: put it in a file and pass --password-file"
    assert wrong.detail.startswith("none of the given passwords opens the PDF")
    assert "abracadabra" not in str(wrong)
    assert pages(path, Kind.PDF, ["abracadabra", "sesame"]) == 1


def test_an_owner_restricted_pdf_opens(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "restricted.pdf", encryption=PDF_ENCRYPT_AES_256, owner_pw="hunter2", permissions=0)
    assert pages(path, Kind.PDF) == 1


def test_a_pdf_encrypted_for_another_program_is_unsupported(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "drm.pdf", encryption=PDF_ENCRYPT_RC4_128, owner_pw="x")
    path.write_bytes(path.read_bytes().replace(b"/Filter/Standard", b"/Filter/FOPN_foo"))
    assert problem(path, Kind.PDF).reason == Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"", Kind.PDF, Reason.EMPTY_FILE),
        (b"", Kind.TIFF, Reason.EMPTY_FILE),
        (b"%PDF-1.7\nnothing of it", Kind.PDF, Reason.UNREADABLE),
        (NO_PAGES, Kind.PDF, Reason.NO_PAGES),
        (b"\x89PNG\r\n\x1a\nnothing of it", Kind.PNG, Reason.UNREADABLE),
        (b"\xff\xd8\xffnothing of it", Kind.JPEG, Reason.UNREADABLE),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 nothing of it", Kind.WEBP, Reason.UNREADABLE),
    ],
)
def test_a_file_without_pages_has_one_reason(tmp_path: Path, content: bytes, kind: Kind, reason: Reason) -> None:
    path = tmp_path / "document"
    path.write_bytes(content)
    error = problem(path, kind)
    assert error.reason == reason
    assert str(tmp_path) not in error.detail
    assert "/dev" not in error.detail


@pytest.mark.parametrize("kind", [Kind.PDF, Kind.TIFF])
def test_a_file_of_too_many_pages_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    monkeypatch.setattr(limits, "MAX_PAGES", 2)
    path = tmp_path / "document"
    monkeypatch.setattr(tiff, "MAX_PAGES", 2)
    if kind is Kind.PDF:
        write_pdf(path, 3)
    else:
        frames = [Image.new("L", (8, 8)) for _ in range(3)]
        frames[0].save(path, "TIFF", save_all=True, append_images=frames[1:])
    error = problem(path, kind)
    said = "the file claims 3 pages" if kind is Kind.PDF else "the TIFF has more than 2 images"
    assert error.reason is Reason.TOO_LARGE
    assert error.detail.startswith(said)


def tiff_of(directories: int, *, entries: int = 8, apart: int | None = None, last: int = 0) -> bytes:
    """Return a TIFF of one pixel in so many directories; they begin `apart` bytes apart, and `last` follows the last one."""
    tags = [(256, 1), (257, 1), (258, 1), (259, 1), (262, 1), (273, 8), (278, 1), (279, 1)]
    tags += [(40_000 + number, 0) for number in range(entries - len(tags))]
    size = apart or 2 + 12 * entries + 4
    data = bytearray(b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + b"\0" * (size * directories + 12 * entries))
    for number in range(directories):
        begin = 16 + number * size
        following = begin + size if number + 1 < directories else last
        packed = struct.pack("<H", entries) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        data[begin : begin + len(packed) + 4] = packed + struct.pack("<I", following)
    return bytes(data)


def test_the_time_to_find_the_pages_of_a_tiff_grows_linearly(tmp_path: Path) -> None:
    path = tmp_path / "many.tif"

    def find(count: int) -> None:
        path.write_bytes(tiff_of(count))
        assert pages(path, Kind.TIFF) == count
        with path.open("rb") as file, closing(open_document(file.fileno(), Kind.TIFF)) as document:
            assert isinstance(document, ImageDocument)
            assert document.frame(count - 1).size == (1, 1)

    assert_grows_linearly(find, 4000)


def test_a_tiff_whose_directories_form_a_loop_has_each_page_once(tmp_path: Path) -> None:
    path = tmp_path / "loop.tif"
    path.write_bytes(tiff_of(5, last=16 + 102))
    assert pages(path, Kind.TIFF) == 5


def test_a_tiff_whose_directories_overlap_is_unreadable(tmp_path: Path) -> None:
    # Given directories in the values of each other's entries: each has a thousand entries, and the next begins 12 bytes later
    count = 1000
    data = bytearray(b"II*\0" + struct.pack("<I", 8) + b"\0" * (12 * 2 * count + 100))
    for number in range(count):
        struct.pack_into("<H", data, 8 + 12 * number, count)
    for number in range(count):
        struct.pack_into("<I", data, 8 + 12 * number + 2 + 12 * count, 8 + 12 * (number + 1))
    path = tmp_path / "overlap.tif"
    path.write_bytes(bytes(data))

    # When it is opened, then it is refused before its bytes were read many times
    assert problem(path, Kind.TIFF).reason is Reason.UNREADABLE
    with path.open("rb") as file, pytest.raises(ValueError, match="overlap"):
        tiff.page_directories(MappedFile(file.fileno(), len(data)))


def test_a_page_whose_directory_is_beyond_the_end_of_a_tiff_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "short.tif"
    path.write_bytes(tiff_of(2, last=1_000_000))
    with path.open("rb") as file, closing(open_document(file.fileno(), Kind.TIFF)) as document:
        assert isinstance(document, ImageDocument)
        assert (document.pages, document.frame(1).size) == (3, (1, 1))
        with pytest.raises(PermanentError) as caught:
            document.frame(2)
    assert caught.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize("big_tiff", [False, True])
def test_the_frames_of_a_tiff_are_its_pages(tmp_path: Path, *, big_tiff: bool) -> None:
    path = tmp_path / "frames.tif"
    first, *others = [Image.new("L", (50 + number, 40)) for number in range(4)]
    first.save(path, save_all=True, append_images=others, big_tiff=big_tiff)
    with path.open("rb") as file, closing(open_document(file.fileno(), Kind.TIFF)) as document:
        assert isinstance(document, ImageDocument)
        assert [document.frame(index).width for index in (3, 0, 2, 1)] == [53, 50, 52, 51]


def test_thumbnails_and_pyramid_levels_are_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tif"
    levels = [Image.new("L", (size, size)) for size in (64, 32, 64, 16)]
    for level, subfile_type in zip(levels, (0, 1, 2, 1), strict=True):
        level.encoderinfo = {"tiffinfo": {254: subfile_type}}
    levels[0].save(path, save_all=True, append_images=levels[1:])
    with path.open("rb") as file, closing(open_document(file.fileno(), Kind.TIFF)) as document:
        assert isinstance(document, ImageDocument)
        assert [document.frame(index).width for index in range(document.pages)] == [64, 64]


def test_a_second_picture_in_a_photograph_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    Image.new("RGB", (40, 30)).save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 6))])
    assert pages(path, Kind.JPEG) == 1


def test_a_header_with_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_IMAGE_PIXELS", 1199)
    path = tmp_path / "large.png"
    path.write_bytes(encoded("PNG"))
    with path.open("rb") as file, closing(open_document(file.fileno(), Kind.PNG)) as document:
        assert isinstance(document, ImageDocument)
        with pytest.raises(PermanentError) as caught:
            document.frame(0)
    assert caught.value.reason == Reason.TOO_LARGE
    assert "40 x 30" in caught.value.detail
