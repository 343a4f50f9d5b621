from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from ocrfleet.records.documents import Kind
from producer.errors import UsageError
from producer.intake.discover import Candidate, Skipped, discover, kind_of

PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
#: by Pillow's name of the format
KINDS = {
    "PNG": Kind.PNG,
    "JPEG": Kind.JPEG,
    "TIFF": Kind.TIFF,
    "WEBP": Kind.WEBP,
    "BMP": Kind.BMP,
    "JPEG2000": Kind.JPEG2000,
}


def image(path: Path, form: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 255).save(path, form)
    return path


def pdf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PDF)
    return path


def found(*inputs: Path, group_folders: bool = False, leave_out: Path = Path("elsewhere")) -> list[Candidate | Skipped]:
    return list(discover(inputs, group_folders=group_folders, leave_out=leave_out))


def names(items: Iterable[Candidate | Skipped]) -> list[str]:
    return [item.name for item in items if isinstance(item, Candidate)]


def skipped(items: Iterable[Candidate | Skipped]) -> dict[str, str]:
    return {item.name: item.reason for item in items if isinstance(item, Skipped)}


# ---- kinds


@pytest.mark.parametrize(("form", "kind"), KINDS.items())
def test_an_image_is_recognised_by_its_bytes(tmp_path: Path, form: str, kind: Kind) -> None:
    # Given an image named without an extension
    path = image(tmp_path / "scan", form)

    # Then it is found, and is what it is
    assert kind_of(path) is kind
    assert found(tmp_path) == [Candidate("scan", (path,))]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PDF, Kind.PDF),
        (b"\n" * 1000 + PDF, Kind.PDF),
        (b"\n" * 1020 + PDF, None),
        (b"II+\x00\x08\x00\x00\x00", Kind.TIFF),
        (b"MM\x00+\x00\x08\x00\x00", Kind.TIFF),
        (b"\xff\x4f\xff\x51", Kind.JPEG2000),
        (b"BM, the initials of a person", None),
        (b"RIFF\x00\x00\x00\x00WAVE", None),
        (b"PK\x03\x04", None),
        (b"", None),
    ],
)
def test_formats_are_recognised_by_their_first_bytes(tmp_path: Path, data: bytes, kind: Kind | None) -> None:
    (tmp_path / "file").write_bytes(data)

    assert kind_of(tmp_path / "file") is kind


def test_the_bytes_count_and_not_the_name(tmp_path: Path) -> None:
    # Given a PNG that is called a PDF, and a PDF that is called a text
    image(tmp_path / "a.pdf")
    pdf(tmp_path / "b.txt")

    # Then both are documents of the kind that they are
    assert names(found(tmp_path)) == ["a.pdf", "b.txt"]
    assert [kind_of(tmp_path / name) for name in ("a.pdf", "b.txt")] == [Kind.PNG, Kind.PDF]


def test_a_file_that_is_no_document_is_skipped_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a scan")

    items = found(tmp_path)

    assert names(items) == []
    assert "neither a PDF nor an image" in skipped(items)["notes.txt"]


def test_a_file_that_is_named_is_never_just_skipped(tmp_path: Path) -> None:
    # Given a text, and a pipe
    (tmp_path / "notes.txt").write_text("not a scan")
    os.mkfifo(tmp_path / "pipe")

    # Then the first is a broken document, and the second is skipped and marked as named by the user
    assert names(found(tmp_path / "notes.txt")) == ["notes.txt"]
    assert found(tmp_path / "pipe") == [Skipped("pipe", "not a regular file", named=True)]


def test_a_broken_scan_is_a_document_and_not_skipped(tmp_path: Path) -> None:
    # Given files that claim to be scans and are not, one of them empty
    for name in ("a.pdf", "b.TIF", "c.Jp2"):
        (tmp_path / name).write_bytes(b"<html>404</html>" if name == "a.pdf" else b"")

    # Then they are reported as broken documents, later
    assert names(found(tmp_path)) == ["a.pdf", "b.TIF", "c.Jp2"]


# ---- folders


def test_a_file_is_named_by_its_path_below_the_folder(tmp_path: Path) -> None:
    pdf(tmp_path / "box" / "1874" / "a.pdf")
    pdf(tmp_path / "box" / "b.pdf")

    assert names(found(tmp_path / "box")) == ["b.pdf", "1874/a.pdf"]
    assert names(found(tmp_path)) == ["box/b.pdf", "box/1874/a.pdf"]


def test_a_file_that_was_named_itself_is_called_by_its_name(tmp_path: Path) -> None:
    path = pdf(tmp_path / "box" / "a.pdf")

    assert found(path) == [Candidate("a.pdf", (path,))]


def test_files_and_folders_come_in_natural_order(tmp_path: Path) -> None:
    for name in ("10.pdf", "9.pdf", "1.pdf", "vol 10/1.pdf", "vol 9/1.pdf"):
        pdf(tmp_path / name)

    assert names(found(tmp_path)) == ["1.pdf", "9.pdf", "10.pdf", "vol 9/1.pdf", "vol 10/1.pdf"]


def test_hidden_files_and_folders_are_skipped_and_reported(tmp_path: Path) -> None:
    for name in (".a.pdf", "._b.pdf", ".cache/c.pdf", "d.pdf", ".DS_Store"):
        pdf(tmp_path / name)

    items = found(tmp_path)
    assert [item for item in items if isinstance(item, Candidate)] == [Candidate("d.pdf", (tmp_path / "d.pdf",))]
    assert {item.name for item in items if isinstance(item, Skipped)} == {".a.pdf", "._b.pdf", ".cache"}


def test_books_whose_names_clash_in_nested_folders_are_refused(tmp_path: Path) -> None:
    # Given images in a folder and in a folder of the same name within it: both would be called after it
    for place in ("scans", "scans/scans"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    with pytest.raises(UsageError, match="would both be written"):
        found(tmp_path / "scans", group_folders=True)


def test_a_hidden_file_that_was_named_itself_is_read(tmp_path: Path) -> None:
    assert names(found(pdf(tmp_path / ".a.pdf"))) == [".a.pdf"]


@pytest.mark.parametrize("spelling", ["out", "./out", "../scans/out"])
def test_the_output_folder_is_left_out(tmp_path: Path, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an output folder inside the input folder, with something in it that could be read
    scans = tmp_path / "scans"
    pdf(scans / "a.pdf")
    pdf(scans / "out" / "b.pdf")
    pdf(scans / "out" / "deep" / "c.pdf")
    monkeypatch.chdir(scans)

    # Then it is not searched, however either was spelt
    assert names(found(Path(), leave_out=Path(spelling))) == ["a.pdf"]
    assert names(found(scans, leave_out=Path(spelling))) == ["a.pdf"]


def test_a_folder_whose_name_begins_like_the_output_is_not_left_out(tmp_path: Path) -> None:
    pdf(tmp_path / "out-of-print" / "a.pdf")

    assert names(found(tmp_path, leave_out=tmp_path / "out")) == ["out-of-print/a.pdf"]


def test_an_empty_folder_has_no_documents(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    assert found(tmp_path, group_folders=True) == []


# ---- books


def test_the_images_of_a_folder_are_one_document(tmp_path: Path) -> None:
    # Given a book of page images, with a PDF and a note beside them
    pages = [image(tmp_path / "book" / name) for name in ("p1.png", "p2.png", "p10.png")]
    article = pdf(tmp_path / "book" / "p3.pdf")
    (tmp_path / "book" / "readme.txt").write_text("")

    # When folders are documents
    items = found(tmp_path, group_folders=True)

    # Then the images are one, in natural order, and the rest is what it is
    assert [item for item in items if isinstance(item, Candidate)] == [
        Candidate("book", tuple(pages), grouped=True),
        Candidate("book/p3.pdf", (article,)),
    ]
    assert list(skipped(items)) == ["book/readme.txt"]


def test_every_folder_is_a_document_of_its_own(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/b/1.png", "c/1.png", "c/2.png"):
        image(tmp_path / name)

    items = found(tmp_path, group_folders=True)

    assert {item.name: len(item.files) for item in items if isinstance(item, Candidate)} == {"a": 1, "a/b": 1, "c": 2}


def test_a_folder_given_by_itself_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "book" / "1.png")
    monkeypatch.chdir(tmp_path / "book")

    assert names(found(tmp_path / "book", group_folders=True)) == ["book"]
    assert names(found(Path(), group_folders=True)) == ["book"]


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\nand no more"])
def test_a_broken_image_stays_in_its_place(tmp_path: Path, data: bytes) -> None:
    # Given a book whose second page is broken
    pages = [image(tmp_path / "book" / f"{number}.png") for number in (1, 2, 3)]
    pages[1].write_bytes(data)

    # Then it is the second page still: none shifts
    assert found(tmp_path, group_folders=True) == [Candidate("book", tuple(pages), grouped=True)]


def test_in_a_book_too_the_bytes_count(tmp_path: Path) -> None:
    # Given a page image that is called a PDF, and a PDF that is called an image
    one, two = image(tmp_path / "book" / "1.pdf"), image(tmp_path / "book" / "2")
    other = pdf(tmp_path / "book" / "3.png")

    assert found(tmp_path, group_folders=True) == [
        Candidate("book", (one, two), grouped=True),
        Candidate("book/3.png", (other,)),
    ]


def test_a_file_given_by_itself_is_no_book(tmp_path: Path) -> None:
    path = image(tmp_path / "1.png")

    assert found(path, group_folders=True) == [Candidate("1.png", (path,))]


# ---- ambiguous and missing inputs


def test_two_files_of_one_name_are_refused_and_both_named(tmp_path: Path) -> None:
    one, other = pdf(tmp_path / "a" / "x.pdf"), pdf(tmp_path / "b" / "x.pdf")

    with pytest.raises(UsageError) as caught:
        found(one, other)

    assert str(one) in str(caught.value)
    assert str(other) in str(caught.value)


def test_two_folders_with_files_of_one_name_are_refused(tmp_path: Path) -> None:
    pdf(tmp_path / "a" / "x.pdf")
    pdf(tmp_path / "b" / "x.pdf")

    with pytest.raises(UsageError, match=r"x\.pdf\.md"):
        found(tmp_path / "a", tmp_path / "b")

    # And the way out that the message names is one
    assert names(found(tmp_path)) == ["a/x.pdf", "b/x.pdf"]


def test_two_books_of_one_name_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "a" / "book" / "1.png")
    image(tmp_path / "b" / "book" / "1.png")

    with pytest.raises(UsageError, match="one by one"):
        found(tmp_path / "a" / "book", tmp_path / "b" / "book", group_folders=True)


def test_the_same_file_given_twice_is_one(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf")

    assert names(found(path, path)) == ["a.pdf"]


def test_the_same_file_spelt_in_two_ways_is_one(tmp_path: Path) -> None:
    # Given a file that is named by a link to its folder, by a detour, and in its folder
    path = pdf(tmp_path / "box" / "a.pdf")
    (tmp_path / "link").symlink_to(tmp_path / "box")

    assert names(found(path, tmp_path / "link" / "a.pdf")) == ["a.pdf"]
    assert names(found(path, tmp_path / "box" / ".." / "box" / "a.pdf")) == ["a.pdf"]


def test_a_file_and_its_folder_are_one(tmp_path: Path) -> None:
    path = pdf(tmp_path / "box" / "a.pdf")

    assert names(found(tmp_path / "box", path)) == ["a.pdf"]


def test_an_input_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    # Given a good input before one with a typing error
    pdf(tmp_path / "a.pdf")

    # When the first document is requested, then the error is raised before any document
    with pytest.raises(UsageError, match=r"there is no .*missing"):
        next(discover([tmp_path / "a.pdf", tmp_path / "missing"], group_folders=False, leave_out=Path("out")))


# ---- strange files


@pytest.mark.parametrize("group_folders", [False, True])
def test_a_broken_link_is_skipped_with_a_reason(tmp_path: Path, group_folders: bool) -> None:  # noqa: FBT001
    (tmp_path / "a.pdf").symlink_to(tmp_path / "gone.pdf")

    assert skipped(found(tmp_path, group_folders=group_folders)) == {"a.pdf": "a broken link"}


def test_a_link_to_a_file_is_the_file(tmp_path: Path) -> None:
    pdf(tmp_path / "elsewhere" / "a.pdf")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.pdf").symlink_to(tmp_path / "elsewhere" / "a.pdf")

    assert names(found(tmp_path / "in")) == ["b.pdf"]


@pytest.mark.parametrize("group_folders", [False, True])
@pytest.mark.timeout(20)
def test_a_pipe_is_skipped_and_not_waited_for(tmp_path: Path, group_folders: bool) -> None:  # noqa: FBT001
    os.mkfifo(tmp_path / "a.png")

    assert skipped(found(tmp_path, group_folders=group_folders)) == {"a.png": "not a regular file"}
    assert skipped(found(tmp_path / "a.png")) == {"a.png": "not a regular file"}


@pytest.mark.timeout(20)
def test_a_folder_that_holds_itself_is_searched_once(tmp_path: Path) -> None:
    pdf(tmp_path / "box" / "a.pdf")
    (tmp_path / "box" / "again").symlink_to(tmp_path / "box")
    (tmp_path / "box" / "up").symlink_to(tmp_path)

    assert names(found(tmp_path)) == ["box/a.pdf"]


def test_a_link_to_a_folder_is_followed_or_reported(tmp_path: Path) -> None:
    # Given an input folder that collects others by links
    pdf(tmp_path / "elsewhere" / "a.pdf")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "box").symlink_to(tmp_path / "elsewhere")

    # Then the reader hears of what lies there
    assert [item.name for item in found(tmp_path / "in")] in (["box"], ["box/a.pdf"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
def test_a_folder_that_can_not_be_read_is_reported(tmp_path: Path) -> None:
    pdf(tmp_path / "box" / "a.pdf")
    (tmp_path / "box").chmod(0)

    assert list(skipped(found(tmp_path))) == ["box"]


def test_a_name_that_is_no_text_is_kept_byte_by_byte(tmp_path: Path) -> None:
    # Given names in an old encoding
    raw = os.fsencode(tmp_path)
    for name in (b"K\xf6ln 2.pdf", b"K\xf6ln 10.pdf", b"\xff\xfe.pdf"):
        pdf(Path(os.fsdecode(raw + b"/" + name)))

    # When they are found, then no byte of them is lost
    assert [os.fsencode(name) for name in names(found(tmp_path))] == [
        b"K\xf6ln 2.pdf",
        b"K\xf6ln 10.pdf",
        b"\xff\xfe.pdf",
    ]


def test_two_files_whose_names_differ_in_such_a_byte_are_two(tmp_path: Path) -> None:
    for folder, name in (("a", b"\xf6.pdf"), ("b", b"\xe4.pdf")):
        pdf(tmp_path / folder / os.fsdecode(name))

    assert len(names(found(tmp_path / "a", tmp_path / "b"))) == 2


@pytest.mark.timeout(60)
def test_a_long_book_takes_as_long_for_each_page_as_a_short_one(tmp_path: Path) -> None:
    # Given two books, one with ten times the pages
    for book, pages in (("short", 200), ("long", 2000)):
        (tmp_path / book).mkdir()
        for number in range(pages):
            (tmp_path / book / f"{number}.png").write_bytes(b"")

    # When they are grouped, with every comparison of two paths counted
    counts = {}
    for book in ("short", "long"):
        counts[book] = _comparisons(tmp_path / book)

    # Then the longer one needs not much more than ten times as many
    assert counts["long"] < 20 * max(counts["short"], 2000)


def _comparisons(folder: Path) -> int:
    """Count how often a path is compared with another while a folder is grouped."""
    count = 0
    compare = Path.__eq__

    def counted(self: Path, other: object) -> bool:
        nonlocal count
        count += 1
        return compare(self, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlib.PurePath.__eq__", counted)
        list(discover([folder], group_folders=True, leave_out=Path("out")))
    return count
