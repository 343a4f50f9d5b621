"""Each format, of the same few pages: valid by its standard, complete, and inert for any content."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import html5lib
import PIL.Image
import pytest
from docx import Document
from hypothesis import given, settings
from hypothesis import strategies as st
from iiif_prezi3 import Manifest as IiifManifest

from ocrfleet import keys
from ocrfleet.errors import PermanentError, Reason
from ocrfleet.formats import DEFAULT_FORMATS, FORMATS, FormatName, parse_formats
from ocrfleet.records.documents import DocumentStatus, Kind, Manifest, Problem, Source
from ocrfleet.records.pages import Block, Line, PageResult, PageStatus, Role
from ocrfleet.storage.store import FolderStore
from worker.formats import WRITERS, writer_of
from worker.formats.content import text_of
from worker.formats.elements import Cell, Table
from worker.formats.materials import Materials
from worker.formats.table_files import texts

DOCUMENT = "0123456789abcdef" * 2
FIGURE = "000001-01-0123456789ab.jpg"
#: formats whose bytes this file looks into
OWN = [FormatName(name) for name in ("txt", "jsonl", "html", "docx", "iiif", "figures", "tables")]
HOSTILE = (
    "</p></body><script>alert(1)</script><img src=x onerror=alert(1)> javascript:alert(1) ]]> &lt;b&gt; --> {{7*7}} "
    "\x00\x07\x1b[31m \u202etxt.exe\u202c \u2066\ufeff \u2028 \ud7ff\ufffe \"'`"
)
TABLE = (
    '<table><caption>Prices</caption><tr><th colspan="2">Fish</th><th>a|b</th></tr>'
    '<tr><td rowspan="2">=1+1</td><td>-5</td><td>+cmd</td></tr><tr><td>x<br>y</td><td>&lt;script&gt;</td></tr></table>'
)
BLOCKS = (
    Block(label="title", role=Role.TITLE, markdown="The Catch", boxes=((100, 50, 500, 90),)),
    Block(label="text", role=Role.TEXT, markdown="One **fine** day\nin May & June", boxes=((100, 100, 500, 160),)),
    Block(label="list", role=Role.LIST, markdown="- a\n  - b\n- c\n\n7. d", boxes=((100, 170, 500, 260),)),
    Block(label="table", role=Role.TABLE, markdown=TABLE, boxes=((100, 270, 500, 360),)),
    Block(label="image", role=Role.FIGURE, figure=FIGURE, boxes=((100, 370, 500, 560),)),
    Block(label="caption", role=Role.CAPTION, markdown='A "boat" <1890>', boxes=((100, 570, 500, 590),)),
    Block(label="text", role=Role.TEXT, markdown=HOSTILE, boxes=((100, 600, 500, 700),)),
    Block(label="footer", role=Role.FOOTER, markdown="a foot", boxes=((100, 780, 500, 790),)),
)


def page(number: int, **facts: Any) -> PageResult:
    known: dict[str, Any] = {"status": PageStatus.DONE, "profile": "p", "engine": "e", "model": "m", "revision": "r"}
    return PageResult(page=number, **(known | {"width_px": 600, "height_px": 800} | facts))


PAGES = (
    page(1, blocks=BLOCKS, markdown=True, text="as above"),
    page(2, blank=True),
    page(3, status=PageStatus.FAILED, reason=Reason.ENGINE_FAILED, detail=f"it said {HOSTILE}"),
    page(4, text=f"plain # text\n{HOSTILE}\n\nsecond", lines=(Line(text="plain # text", box=(10, 10, 590, 40)),)),
)


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    store = FolderStore(tmp_path_factory.mktemp("store"))
    picture = io.BytesIO()
    PIL.Image.new("RGB", (40, 30), "red").save(picture, "JPEG")
    store.put(keys.figure(DOCUMENT, FIGURE), picture.getvalue())
    return Materials(store=store)


def manifest(pages: int, problem: Problem | None = None) -> Manifest:
    source = Source(uri="file:///a.pdf", size=1, mtime_ns=1, sha256="ab" * 32, kind=Kind.PDF, pages=max(pages, 1))
    return Manifest(
        document=DOCUMENT,
        created="20261122T051000.123456Z",
        profile="p",
        profile_digest="cd" * 32,
        sources=() if problem else (source,),
        selection=() if problem else ((1, pages),),
        problem=problem,
    )


def write(
    name: FormatName, materials: Materials, pages: Iterable[PageResult] = PAGES, *, problem: Problem | None = None
) -> bytes:
    pages = list(pages)
    with tempfile.TemporaryFile() as out:
        writer = writer_of(name)(cast("Any", out), materials)
        writer.begin(manifest(len(pages), problem), DocumentStatus.PARTIAL)
        for result in pages:
            writer.page(result)
        writer.end()
        out.seek(0)
        return out.read()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


# ---- all


def test_the_catalogue_and_the_writers_agree() -> None:
    assert set(FORMATS) == set(FormatName) == set(WRITERS)
    assert len({known.extension for known in FORMATS.values()}) == len(FORMATS)


def test_formats_are_chosen_by_their_names() -> None:
    assert parse_formats("md, json,md") == DEFAULT_FORMATS
    for wrong in ("", "md,doc", "MD"):
        with pytest.raises(ValueError, match="the formats are md, json, txt, jsonl, html"):
            parse_formats(wrong)


@pytest.mark.parametrize("name", OWN)
def test_the_same_pages_give_the_same_bytes(name: FormatName, materials: Materials) -> None:
    assert write(name, materials) == write(name, materials)


@pytest.mark.parametrize("name", OWN)
def test_memory_does_not_grow_with_the_pages(name: FormatName, materials: Materials) -> None:
    def peak(pages: int) -> int:
        tracemalloc.start()
        with tempfile.TemporaryFile() as out:
            writer = writer_of(name)(cast("Any", out), materials)
            writer.begin(manifest(pages), DocumentStatus.COMPLETED)
            for number in range(1, pages + 1):
                writer.page(page(number, text="a word or two\n\nand more\n" * 20, blocks=BLOCKS))
            writer.end()
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    write(name, materials)  # libraries and their caches
    assert peak(120) - peak(20) < 500_000


@pytest.mark.parametrize("name", [name for name in OWN if name is not FormatName.IIIF])
def test_a_document_that_could_not_be_read_says_why(name: FormatName, materials: Materials) -> None:
    data = write(name, materials, [], problem=Problem(reason=Reason.EMPTY_FILE, detail="no bytes <b>"))
    text = b"".join(members(data).values()) if data.startswith(b"PK") else data
    assert text
    if name not in {FormatName.FIGURES, FormatName.TABLES}:
        assert b"no bytes" in text
        assert b"<b>" not in text.replace(b"no bytes <b>", b"") or name in {FormatName.TEXT, FormatName.JSONL}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=3))
def test_no_text_breaks_out_of_a_format(materials: Materials, texts: list[str]) -> None:
    # Given pages with any content, as text and as Markdown
    pages = [
        page(number, text=text, markdown=bool(number % 2), lines=(Line(text=text, box=(1, 1, 9, 9)),))
        for number, text in enumerate(texts, 1)
    ]

    # Then each output is read by its standard's parser
    parse_html(write(FormatName.HTML, materials, pages))
    assert len(IiifManifest.model_validate_json(write(FormatName.IIIF, materials, pages)).items) == len(pages)
    Document(io.BytesIO(write(FormatName.DOCX, materials, pages)))
    assert write(FormatName.TEXT, materials, pages).decode().count("\f") == len(pages) - 1
    (line,) = write(FormatName.JSONL, materials, pages).decode().splitlines()
    assert len(json.loads(line)["attributes"]["page"]) == len(pages)


# ---- text and JSON Lines


def test_text_has_a_form_feed_between_pages(materials: Materials) -> None:
    first, blank, failed, plain = write(FormatName.TEXT, materials).decode().split("\f")

    assert first.startswith("The Catch\n\nOne fine day\nin May & June\n\n- a\n- b\n- c\n7. d\n\nPrices\n")
    assert "-5\t+cmd" in first
    assert "a foot" not in first
    assert blank == ""
    assert failed.startswith("[Page 3 is missing: it said </p>")
    assert plain.startswith("plain # text\n")
    assert not re.search("[\x00-\x08\x0e-\x1f\u202a-\u202e\u2066-\u2069]", first + failed + plain)


def test_text_of_a_single_blank_page_is_an_output_all_the_same(materials: Materials) -> None:
    assert write(FormatName.TEXT, materials, [page(1, blank=True)]) == b"\n"


def test_a_line_of_json_has_the_text_and_its_spans(materials: Materials) -> None:
    lines = write(FormatName.JSONL, materials).decode().splitlines()

    # Given Dolma's fields, on one line for every reader of lines
    (document,) = map(json.loads, lines)
    assert list(document) == ["id", "text", "source", "added", "metadata", "attributes"]
    assert (document["id"], document["source"], document["added"]) == (DOCUMENT, "ocrfleet", "2026-11-22T05:10:00.123Z")

    # Then its spans are the pages
    spans = document["attributes"]["page"]
    assert [number for _, _, number in spans] == [1, 2, 3, 4]
    assert [document["text"][start:end] for start, end, _ in spans] == [text_of(result) for result in PAGES]
    assert document["attributes"]["reason"] == [[*spans[2][:2], "engine_failed"]]
    assert document["attributes"]["confidence"] == []
    assert document["attributes"]["engine"][0][2] == "e: m@r"


# ---- HTML

_TAGS = frozenset(
    {"html", "head", "meta", "title", "style", "body", "section", "p", "a", "h1", "h2", "h3", "h4", "h5", "h6"}
    | {"ul", "ol", "li", "table", "caption", "tbody", "tr", "th", "td", "figure", "img", "blockquote", "hr", "pre"}
    | {"code", "br"}
)


def parse_html(data: bytes) -> Any:
    """Return the tree of a page without any parse error of the standard, and without anything that acts."""
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(data)
    tags = {element.tag for element in tree.iter() if isinstance(element.tag, str)}
    assert tags <= _TAGS
    for element in tree.iter():
        assert not any(name.startswith("on") for name in element.attrib)
        assert element.attrib.get("href", "#").startswith("#")
        assert element.attrib.get("src", "data:image/jpeg;").startswith("data:image/jpeg;")
    return tree


def test_html_is_valid_and_does_nothing(materials: Materials) -> None:
    tree = parse_html(write(FormatName.HTML, materials))

    assert [section.attrib["id"] for section in tree.iter("section")] == ["page-1", "page-2", "page-3", "page-4"]
    assert [heading.text for heading in tree.iter("h1")] == ["The Catch"]
    assert [(item.text or "").strip() for item in tree.iter("li")] == ["a", "b", "c", "d"]
    assert next(iter(tree.iter("img"))).attrib["alt"] == 'A "boat" <1890>'
    assert next(iter(tree.iter("th"))).attrib["colspan"] == "2"
    text = "".join(tree.itertext())
    assert "<script>alert(1)</script>" in text
    assert not re.search("[\x00-\x08\x0e-\x1f\u202a-\u202e\u2066-\u2069]", text)


def test_a_figure_that_was_removed_is_said_to_be_missing(tmp_path: Path) -> None:
    bare = Materials(store=FolderStore(tmp_path))
    for name in (FormatName.HTML, FormatName.DOCX, FormatName.FIGURES):
        write(name, bare)
    assert b"A figure is missing." in write(FormatName.HTML, bare)


# ---- DOCX


def test_docx_has_headings_paragraphs_tables_and_figures(materials: Materials) -> None:
    data = write(FormatName.DOCX, materials)
    document = Document(io.BytesIO(data))

    found = {paragraph.text: paragraph.style.name for paragraph in document.paragraphs if paragraph.style is not None}
    assert found["The Catch"] == "Heading 1"
    assert found["One fine day\nin May & June"] == "Normal"
    assert found["•\tb"] == "List 2"
    assert found["7.\td"] == "List"
    assert found["Prices"] == "Caption"
    (table,) = document.tables
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["Fish", "Fish", "a|b"],
        ["=1+1", "-5", "+cmd"],
        ["=1+1", "x\ny", "<script>"],
    ]
    (picture,) = document.inline_shapes
    assert picture.width < picture.height * 2
    assert members(data)["word/media/picture000001.jpg"] == materials.store.get(keys.figure(DOCUMENT, FIGURE))
    text = "\n".join(paragraph.text for paragraph in document.paragraphs)
    assert "<script>alert(1)</script>" in text
    assert not re.search("[\x00-\x08\x0e-\x1f\u202a-\u202e\u2066-\u2069]", text)


def test_each_page_begins_on_a_page_of_its_own_with_a_bookmark(materials: Materials) -> None:
    body = members(write(FormatName.DOCX, materials))["word/document.xml"].decode()

    assert re.findall(r'w:bookmarkStart w:id="\d+" w:name="(\w+)"', body) == ["page_1", "page_2", "page_3", "page_4"]
    assert body.count("<w:pageBreakBefore/>") == 3


# ---- IIIF


def test_iiif_has_a_canvas_for_each_page_and_an_annotation_for_each_line(materials: Materials) -> None:
    data = write(FormatName.IIIF, materials)
    read = IiifManifest.model_validate_json(data)
    assert [canvas.label["none"] for canvas in read.items] == [["1"], ["2"], ["3"], ["4"]]

    canvases = json.loads(data)["items"]
    assert "annotations" not in canvases[1]
    assert canvases[2]["summary"]["none"][0].startswith("Page 3 is missing")
    (page_of_lines,) = canvases[3]["annotations"]
    line = page_of_lines["items"][0]
    assert (line["motivation"], line["body"]["value"]) == ("supplementing", "plain # text")
    assert line["target"] == f"https://example.org/iiif/{DOCUMENT}/canvas/4#xywh=10,10,580,30"


def test_iiif_of_a_document_without_pages_is_refused(materials: Materials) -> None:
    with pytest.raises(PermanentError, match="it has no pages: no bytes"):
        write(FormatName.IIIF, materials, [], problem=Problem(reason=Reason.EMPTY_FILE, detail="no bytes"))


# ---- figures and tables


def test_figures_are_png_files_with_a_list(materials: Materials) -> None:
    files = members(write(FormatName.FIGURES, materials))

    with PIL.Image.open(io.BytesIO(files["page-000001-figure-01.png"]), formats=["PNG"]) as picture:
        assert picture.size == (40, 30)
    (row,) = csv.DictReader(io.StringIO(files["figures.csv"].decode()), strict=True)
    assert (row["page"], row["x0"], row["y1"], row["caption"]) == ("1", "100.0", "560.0", 'A "boat" <1890>')


def test_tables_are_csv_files_in_which_nothing_is_calculated(materials: Materials) -> None:
    files = members(write(FormatName.TABLES, materials))

    rows = list(csv.reader(io.StringIO(files["page-000001-table-01.csv"].decode(), newline=""), strict=True))
    assert rows == [["Fish", "", "a|b"], ["'=1+1", "-5", "'+cmd"], ["", "x\ny", "<script>"]]
    (row,) = csv.DictReader(io.StringIO(files["tables.csv"].decode()), strict=True)
    assert row == {
        "file": "page-000001-table-01.csv",
        "page": "1",
        "rows": "3",
        "columns": "3",
        "caption": "Prices",
    }


@given(
    st.lists(
        st.lists(st.builds(Cell, st.just("x"), st.booleans(), st.integers(1, 999), st.integers(1, 999)), max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_every_cell_has_a_place_of_its_own(rows: list[list[Cell]]) -> None:
    found = texts(Table(tuple(map(tuple, rows))))

    assert len({len(row) for row in found}) == 1
    assert sum(row.count("x") for row in found) == sum(map(len, rows))
