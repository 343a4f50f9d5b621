"""ALTO, hOCR, PAGE-XML and METS: valid by their schemas, and each word of a page is in them, with its place."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, cast

import pytest
from lxml import etree

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.formats import FormatName
from ocrfleet.records.documents import DocumentStatus, Kind, Manifest, Problem, Source
from ocrfleet.records.pages import Block, Line, PageResult, PageStatus, Placed, Role, Word
from ocrfleet.storage.store import ObjectStore
from tests.support.servers import ROOT, lacking
from worker.formats import writer_of
from worker.formats.materials import Materials

SCHEMAS = Path(os.environ.get("OCRFLEET_SCHEMAS", ROOT.parent / "shared" / "schemas"))
#: What XML may not hold, and what it has to escape.
HOSTILE = "a\x00b\x1b&<script>\"'\ufffe]]>\ud7ff"

IMAGE = Source(uri="file:///scans/page%20%26%20one.tif", size=10, mtime_ns=5, sha256="ab" * 32, kind=Kind.TIFF, pages=1)
BOOK = Source(uri="store:uploads/x", size=20, mtime_ns=5, sha256="cd" * 32, kind=Kind.PDF, pages=5)


def page(number: int, **fields: Any) -> PageResult:
    known: dict[str, Any] = {"status": PageStatus.DONE, "profile": "p", "engine": "e&", "model": "m", "revision": "r"}
    size = {"width_px": 1000, "height_px": 1500, "width_pt": 500.0, "height_pt": 750.0}
    return PageResult(page=number, **(known | size | fields))


def block(role: Role, box: tuple[float, float, float, float], **fields: Any) -> Block:
    return Block(label=role.value, role=role, boxes=(box,), **fields)


PAGES = [
    # With words, of all kinds of blocks
    page(
        1,
        text="…",
        blocks=(
            block(Role.HEADER, (0, 0, 900, 20)),
            block(Role.TEXT, (0, 50, 900, 120)),
            block(Role.FIGURE, (0, 200, 900, 400), figure="p00001-1.png"),
            block(Role.TABLE, (0, 500, 900, 700)),
            block(Role.FORMULA, (0, 800, 900, 900)),
            block(Role.OTHER, (0, 950, 900, 990)),
        ),
        words=(
            Word("Head", (1, 1, 90.55, 20), 0.987654, 0, 0),
            Word("to", (1, 50, 40, 80), None, 1, 1),
            Word("ent-", (50, 50, 90, 80), 0.5, 1, 1, Placed.INTERPOLATED),
            Word("falten.", (1, 90, 80, 120), 0.5, 2, 1),
            Word("cell", (1, 510, 80, 540), 1.0, 3, 3),
            Word("x=1", (0, 800, 900, 900), None, 4, 4, Placed.BLOCK),
            Word(HOSTILE, (-3, 1000, 80, 1020), 1.2, 5, None),
        ),
    ),
    page(2, blank=True),
    page(3, status=PageStatus.FAILED, reason=Reason.ENGINE_FAILED, detail=HOSTILE, width_px=None, height_px=None),
    page(4, text="one two", lines=(Line(text="one two", box=(1, 2, 100, 22), confidence=0.75),)),
    page(5, text=f"# Title\n\n{HOSTILE}", markdown=True, finish_reason="stop"),
    page(6, text="one", text_layer=True, lines=(Line(text="one", box=(1, 2, 100, 22)),)),
]


def manifest(problem: Problem | None = None) -> Manifest:
    return Manifest(
        document="0" * 32,
        created="20261122T051000.123456Z",
        profile="p",
        profile_digest="cd" * 32,
        sources=() if problem else (IMAGE, BOOK),
        selection=() if problem else ((1, 6),),
        problem=problem,
    )


def written(name: FormatName, pages: list[PageResult] = PAGES, problem: Problem | None = None) -> bytes:
    out = io.BytesIO()
    writer = writer_of(name)(out, Materials(store=cast("ObjectStore", None)))
    writer.begin(manifest(problem), DocumentStatus.PARTIAL)
    for one in pages:
        writer.page(one)
    writer.end()
    return out.getvalue()


def members(name: FormatName) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(written(name))) as archive:
        assert archive.testzip() is None
        return {one: archive.read(one) for one in archive.namelist()}


def schema(name: str) -> etree.XMLSchema:
    if not (SCHEMAS / name).is_file():
        lacking(f"the schema {name}")
    return etree.XMLSchema(etree.parse(SCHEMAS / name))


def words_of(root: Any, tag: str, attribute: str) -> list[str]:
    return [element.get(attribute) for element in root.iter(f"{{*}}{tag}")]


@pytest.mark.parametrize("name", [FormatName.ALTO, FormatName.HOCR, FormatName.PAGE_XML, FormatName.METS])
def test_the_same_pages_give_the_same_bytes(name: FormatName) -> None:
    assert written(name) == written(name)


@pytest.mark.parametrize("name", [FormatName.ALTO, FormatName.PAGE_XML, FormatName.METS])
def test_a_document_without_pages_has_an_output(name: FormatName) -> None:
    assert written(name, [], Problem(reason=Reason.NEEDS_PASSWORD, detail="no"))


def test_hocr_needs_a_page() -> None:
    with pytest.raises(PermanentError, match="it has no pages: no"):
        written(FormatName.HOCR, [], Problem(reason=Reason.NEEDS_PASSWORD, detail="no"))


class TestAlto:
    def test_each_page_is_valid(self) -> None:
        valid = schema("alto-4-4.xsd")
        for data in members(FormatName.ALTO).values():
            valid.assertValid(etree.fromstring(data))

    def test_words_confidences_and_places(self) -> None:
        root = etree.fromstring(members(FormatName.ALTO)["000001.xml"])
        strings = list(root.iter("{*}String"))
        assert [one.get("CONTENT") for one in strings][:6] == ["Head", "to", "ent", "falten.", "cell", "x=1"]
        assert [one.get("WC") for one in strings] == ["0.9877", None, "0.5", "0.5", "1", None, "1"]
        assert (strings[0].get("HPOS"), strings[0].get("WIDTH")) == ("1", "89.55")
        tags = {one.get("ID"): one.get("LABEL") for one in root.iter("{*}OtherTag")}
        assert [tags.get(one.get("TAGREFS", "")) for one in strings] == [
            None,
            None,
            "interpolated",
            None,
            None,
            "block",
            None,
        ]

    def test_a_divided_word_is_whole(self) -> None:
        root = etree.fromstring(members(FormatName.ALTO)["000001.xml"])
        parts = [one for one in root.iter("{*}String") if one.get("SUBS_TYPE")]
        assert [(one.get("SUBS_TYPE"), one.get("SUBS_CONTENT")) for one in parts] == [
            ("HypPart1", "entfalten."),
            ("HypPart2", "entfalten."),
        ]
        assert words_of(root, "HYP", "CONTENT") == ["-"]

    def test_blocks_have_their_kinds_and_roles(self) -> None:
        root = etree.fromstring(members(FormatName.ALTO)["000001.xml"])
        (space,) = root.iter("{*}PrintSpace")
        kinds = [(etree.QName(one).localname, one.get("TAGREFS")) for one in space]
        assert kinds == [
            ("TextBlock", "ROLE_header"),
            ("TextBlock", "ROLE_text"),
            ("Illustration", "ROLE_figure"),
            ("ComposedBlock", "ROLE_table"),
            ("ComposedBlock", "ROLE_formula"),
            ("GraphicalElement", "ROLE_other"),
            ("TextBlock", "ROLE_text"),
        ]

    def test_each_page_names_its_image_and_what_read_it(self) -> None:
        files = members(FormatName.ALTO)
        first, second = etree.fromstring(files["000001.xml"]), etree.fromstring(files["000002.xml"])
        assert first.findtext(".//{*}fileName") == "page & one.tif"
        assert [one.text for one in second.iter("{*}fileIdentifier")] == [f"sha256:{BOOK.sha256}", "page 1 of 5"]
        assert first.findtext(".//{*}softwareName") == "e&"
        assert etree.fromstring(files["000006.xml"]).findtext(".//{*}softwareName") is None

    def test_a_page_that_failed_says_so(self) -> None:
        root = etree.fromstring(members(FormatName.ALTO)["000003.xml"])
        (one,) = root.iter("{*}Page")
        assert one.get("QUALITY_DETAIL", "").startswith("failed: engine_failed: a")
        assert one.get("WIDTH") is None


class TestHocr:
    def test_it_is_accepted_by_the_specs_own_checker(self, tmp_path: Path) -> None:
        path = tmp_path / "out.hocr"
        path.write_bytes(written(FormatName.HOCR))
        checked = subprocess.run(
            [sys.executable, "-m", "hocr_spec.cli", "--profile", "standard", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr

    def test_words_have_their_places_and_confidences(self) -> None:
        root = etree.fromstring(written(FormatName.HOCR))
        words = [one for one in root.iter("{*}span") if one.get("class") == "ocrx_word"]
        assert words[0].get("title") == "bbox 1 1 91 20; x_wconf 99"
        assert words[1].get("title") == "bbox 1 50 40 80"
        assert [one.get("class") for one in root.iter("{*}div")].count("ocr_page") == len(PAGES)
        assert "\x00" not in "".join(root.itertext())


class TestPageXml:
    def test_every_reference_has_its_region_and_ids_are_unique(self) -> None:
        for data in members(FormatName.PAGE_XML).values():
            root = etree.fromstring(data)
            ids = [one.get("id") for one in root.iter() if one.get("id")]
            assert len(ids) == len(set(ids))
            assert {one.get("regionRef") for one in root.iter("{*}RegionRefIndexed")} <= set(ids)

    def test_regions_lines_and_words(self) -> None:
        root = etree.fromstring(members(FormatName.PAGE_XML)["000001.xml"])
        kinds = [etree.QName(one).localname for one in root.find("{*}Page")][1:]
        regions = ["TextRegion", "TextRegion", "ImageRegion", "TableRegion", "MathsRegion", "TextRegion", "TextRegion"]
        assert kinds == regions
        lines = [one.findtext("{*}TextEquiv/{*}Unicode") for one in root.iter("{*}TextLine")]
        assert lines[:5] == ["Head", "to ent-", "falten.", "cell", "x=1"]
        line = next(one for one in root.iter("{*}TextLine"))
        assert line.find("{*}Baseline").get("points") == "1,20 91,20"
        assert line.find("{*}Word/{*}TextEquiv").get("conf") == "0.9877"


class TestMets:
    def test_it_is_valid_and_its_checksums_are_right(self) -> None:
        files = members(FormatName.METS)
        root = etree.fromstring(files["mets.xml"])
        schema("mets-1-12-1.xsd").assertValid(root)
        alto = [one for one in root.iter("{*}file") if str(one.get("ID")).startswith("ALTO_")]
        assert len(alto) == len(PAGES)
        for one in alto:
            data = files[str(one[0].get("{http://www.w3.org/1999/xlink}href"))]
            assert (one.get("CHECKSUM"), one.get("SIZE")) == (hashlib.sha256(data).hexdigest(), str(len(data)))
        pages = [one for one in root.iter("{*}div") if one.get("TYPE") == "page"]
        assert [one.get("ORDER") for one in pages] == [str(number) for number in range(1, 7)]
        assert [one.get("FILEID") for one in pages[1]] == ["ORIGINAL_2", "ALTO_2"]
        assert pages[2].get("LABEL") == "failed: engine_failed"

    def test_a_document_that_was_not_taken_in_is_valid(self) -> None:
        data = written(FormatName.METS, [], Problem(reason=Reason.NEEDS_PASSWORD, detail="no"))
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            schema("mets-1-12-1.xsd").assertValid(etree.fromstring(archive.read("mets.xml")))
