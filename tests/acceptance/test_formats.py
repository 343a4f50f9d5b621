"""Output formats from outside: `--formats` when documents are read, `ocrfleet convert` afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.desk import NUMBERED, Desk
from tests.support.fakes.numbered import write_book


@pytest.fixture
def books(desk: Desk) -> Desk:
    write_book(desk.scans / "a.tif", [1, 2])
    write_book(desk.scans / "b.tif", [3])
    return desk


def page_records(desk: Desk) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (desk.out / ".ocrfleet" / "store").rglob("pages/*.json")}


def test_documents_are_written_in_the_formats_that_are_asked_for_and_later_in_others(books: Desk) -> None:
    # Given documents that were read as text and as HTML
    result = books.run("run", "in", "-o", "out", "--formats", "txt,html", *NUMBERED)
    assert result.returncode == 0, result.stderr
    assert sorted(books.outputs()) == ["a.tif.html", "a.tif.txt", "b.tif.html", "b.tif.txt"]
    assert books.outputs()["a.tif.txt"].decode() == "page number 1\n\fpage number 2\n"
    read = page_records(books)
    assert len(read) == 3

    # When they are converted, and run again with other formats
    converted = books.run("convert", "out", "--formats", "jsonl,md")
    assert converted.returncode == 0, converted.stderr
    again = books.run("run", "in", "-o", "out", "--formats", "docx", *NUMBERED)
    assert again.returncode == 0, again.stderr

    # Then all formats are there, and no page was read again
    assert sorted(books.outputs()) == sorted(
        f"{name}.{end}" for name in ("a.tif", "b.tif") for end in ("txt", "html", "jsonl", "md", "docx")
    )
    assert json.loads(books.outputs()["a.tif.jsonl"])["text"] == "page number 1\npage number 2"
    assert page_records(books) == read
    assert "3 of them were in the store already" in again.stdout

    # And in a fleet, all documents of a collection are converted in its store
    store = books.out / ".ocrfleet" / "store"
    fleet = {"OCRFLEET_STORE": str(store)}
    (collection,) = (path.name for path in (store / "collections").iterdir())
    collected = books.run("convert", "--collection", collection, "--formats", "alto", environment=fleet)
    assert collected.returncode == 0, collected.stderr
    written = dict(line.split(": ") for line in collected.stdout.splitlines())
    assert len(written) == 2
    assert set(written.values()) == {"alto"}
    nobody = books.run("convert", "--collection", "nobody", "--formats", "alto", environment=fleet)
    assert nobody.returncode == 2
    assert "there is no document to convert" in nobody.stderr


def test_what_cannot_be_written_is_said_and_harms_nothing_else(books: Desk) -> None:
    # Given a file that is not an image, so it has no pages
    (books.scans / "c.tif").write_bytes(b"II*\0 broken")
    result = books.run("run", "in", "-o", "out", "--formats", "iiif,txt", *NUMBERED)

    assert result.returncode == 1
    assert "c.tif: not_written: iiif: it has no pages" in result.stdout
    assert sorted(books.outputs()) == ["a.tif.iiif.json", "a.tif.txt", "b.tif.iiif.json", "b.tif.txt", "c.tif.txt"]

    converted = books.run("convert", "out", "--formats", "iiif")
    assert converted.returncode == 1
    assert "c.tif" in converted.stderr
    assert "it has no pages" in converted.stderr


@pytest.mark.parametrize("command", [("run", "in", "-o", "out"), ("convert", "in"), ("submit", "in")])
def test_a_format_that_does_not_exist_is_refused_with_the_list(books: Desk, command: tuple[str, ...]) -> None:
    result = books.run(*command, "--formats", "md,wordperfect")

    assert result.returncode == 2
    assert "there is no format 'wordperfect': the formats are md, json, txt" in result.stderr
    assert not books.out.exists()


def test_a_folder_that_is_no_output_cannot_be_converted(books: Desk) -> None:
    result = books.run("convert", "in", "--formats", "txt")

    assert result.returncode == 2
    assert "in is no output folder of `ocrfleet run`" in result.stderr
