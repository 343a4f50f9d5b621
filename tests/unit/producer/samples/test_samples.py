# mypy: allow-untyped-calls
# (PyMuPDF calls itself typed, but annotates no Document.)
from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pymupdf
import pytest
from natsort import natsorted
from PIL import Image, ImageOps

from producer.samples.files import SAMPLES, expected_words, truth, write_samples

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


def test_write_samples_writes_every_file_and_nothing_else(tmp_path: Path) -> None:
    # Given a folder that does not exist
    folder = tmp_path / "not" / "yet"

    # When the samples are written
    paths = write_samples(folder)

    # Then each file of the truth is there, and they are small enough for a first run
    assert [path.relative_to(folder).as_posix() for path in paths] == list(SAMPLES)
    assert sorted(paths) == sorted(path for path in folder.rglob("*") if path.is_file())
    assert sum(path.stat().st_size for path in paths) < 500_000


def test_the_samples_are_the_same_bytes_in_every_version(folder: Path) -> None:
    # So their documents keep their ids
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in SAMPLES))
    assert digest.hexdigest() == "94ac72282b99aabd58a3a94cfac23811107a694fa7b066c27d6f91cc2e6c2a15"


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_has_the_pages_of_the_truth(folder: Path, name: str) -> None:
    # Given the truth of a sample
    truth = expected_words(name)

    # When the file is opened
    with pymupdf.open(folder / name) as document:
        pages = document.page_count

    # Then it has as many pages, each with words on it
    assert pages == len(truth)
    assert all(len(words) > 20 for words in truth)


@pytest.mark.parametrize("name", ["letter.pdf", "two-columns.pdf"])
def test_the_text_layer_of_a_born_digital_sample_is_the_truth(folder: Path, name: str) -> None:
    # When the text layer is read
    with pymupdf.open(folder / name) as document:
        pages = [page.get_text().split() for page in document]

    # Then it is the truth, in reading order
    assert pages == expected_words(name)


def test_reading_two_columns_straight_across_gives_another_text(folder: Path) -> None:
    # When words are read by height only, without columns
    with pymupdf.open(folder / "two-columns.pdf") as document:
        words = [word[4] for word in document[0].get_text("words", sort=True)]

    # Then no word is missing, but the order is wrong
    truth = expected_words("two-columns.pdf")[0]
    assert sorted(words) == sorted(truth)
    assert words != truth


def test_the_scan_has_pictures_and_no_text_layer(folder: Path) -> None:
    with pymupdf.open(folder / "scan.pdf") as document:
        for page in document:
            (picture,) = page.get_image_info()
            assert page.get_text() == ""
            assert round(picture["width"] / page.rect.width * 72) == 200


def test_the_ledger_is_a_bilevel_fax(folder: Path) -> None:
    with Image.open(folder / "ledger.tif") as picture:
        for number in range(2):
            picture.seek(number)
            assert (picture.mode, picture.info["compression"]) == ("1", "group4")
            assert picture.info["dpi"] == (200, 200)


def test_the_ledger_adds_up() -> None:
    # The amounts in the sample must add up.
    for page in truth("ledger.tif"):
        *entries, total = [
            int(row.split("\t")[-1]) for row in page.splitlines() if row[-1:].isdecimal() and "\t" in row
        ]
        assert sum(entries) == total


def test_the_notice_is_stored_on_its_side(folder: Path) -> None:
    with Image.open(folder / "notice.jpg") as stored:
        shown = ImageOps.exif_transpose(stored)
        assert (stored.size, shown.size) == ((960, 1280), (1280, 960))


def test_the_pages_of_the_book_are_in_natural_order() -> None:
    # Given the pages as the truth lists them
    names = [name for name in SAMPLES if name.startswith("book/")]

    # Then page 10 is last, where the alphabet would put it second
    assert natsorted(names) == names
    assert sorted(names) != names
    assert [expected_words(name)[0][-2:] for name in names] == [["Page", "1"], ["Page", "2"], ["Page", "10"]]
