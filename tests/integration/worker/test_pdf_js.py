"""Searchable PDFs in pdf.js, in Chromium: the text that a reader selects and copies there is ours, and lies over its words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pikepdf
import pytest

from ocrfleet.records.documents import Kind
from tests.support.browser import browser, watched
from tests.support.searchable_pdf import LINES, SIZE, Box, result, written
from tests.support.servers import lacking
from tests.unit.worker.formats.pdf.test_searchable_pdf import saved, scan

PDF_JS = Path("/usr/share/javascript/pdf/build")
#: From right to left, with a number and a Latin word.
HEBREW: tuple[tuple[tuple[str, Box], ...], ...] = (
    (("שלום", (480, 100, 540, 124)), ("1848", (420, 100, 470, 124)), ("Pfund", (350, 100, 410, 124))),
    (("עולם", (480, 140, 540, 164)),),
)
PAGE = """<!DOCTYPE html><style>body { margin: 0 } .textLayer { position: absolute; left: 0; top: 0; line-height: 1 }
.textLayer span, .textLayer br { position: absolute; white-space: pre; transform-origin: 0% 0% }</style>
<script src="pdf.worker.js"></script><script src="pdf.js"></script>"""
#: Draws the text layer of a page; returns the text that is selected, and each piece of it with its box in pixels of the page.
SELECTED = """async ([number, width]) => {
  const document_ = await pdfjsLib.getDocument({url: 'scan.pdf', isEvalSupported: false}).promise
  const page = await document_.getPage(number)
  const viewport = page.getViewport({scale: width / page.getViewport({scale: 1}).width})
  const layer = document.body.appendChild(document.createElement('div'))
  layer.className = 'textLayer'
  layer.style.width = `${viewport.width}px`
  layer.style.height = `${viewport.height}px`
  const textContent = await page.getTextContent()
  await pdfjsLib.renderTextLayer({textContent, container: layer, viewport, textDivs: []}).promise
  getSelection().selectAllChildren(layer)
  const pieces = [...layer.querySelectorAll('span')].map(span => [span.textContent, span.getBoundingClientRect()])
  const found = {text: getSelection().toString(), pieces: pieces.map(([text, {x, y, right, bottom}]) => [text, [x, y, right, bottom]])}
  layer.remove()
  return found
}"""


def test_the_selected_text_is_ours_and_lies_over_its_words(tmp_path: Path) -> None:
    if not (PDF_JS / "pdf.js").is_file():
        lacking("pdf.js (Debian's libjs-pdf)")
    pdf = pikepdf.new()
    for rotate in (0, 90):
        scan(pdf, rotate=rotate)
    pages = [result(page=1), result(HEBREW, page=2)]
    made = written([(saved(pdf, tmp_path), Kind.PDF, 2)], pages, tmp_path)

    def answer(route: Any) -> None:
        name = route.request.url.rpartition("/")[2]
        if name == "scan.pdf":
            route.fulfill(body=made.read_bytes(), content_type="application/pdf")
        elif name in {"pdf.js", "pdf.worker.js"}:
            route.fulfill(path=PDF_JS / name)
        else:
            route.fulfill(body=PAGE, content_type="text/html")

    with browser() as chromium:
        page, seen = watched(chromium)
        page.route("http://pdf.test/**", answer)
        page.goto("http://pdf.test/")
        found = [page.evaluate(SELECTED, [number, SIZE[0]]) for number in (1, 2)]

    # pdf.js shows characters from right to left in their reading order
    assert found[0]["text"].split() == ["The", "first", "line", "über", "hyphen-", "ated", "words."]
    assert set(found[1]["text"].split()) == {"שלום", "1848", "Pfund", "עולם"}
    for lines, one in zip((LINES, HEBREW), found, strict=True):
        rows = [line[0][1][1] for line in lines]
        for text, box in one["pieces"]:
            if text.strip():
                near = min(rows, key=lambda top: abs(top - box[1]))
                assert box[1] == pytest.approx(near, abs=6), text
                assert 50 <= box[0] < box[2] <= 550, text
    assert seen.errors == ["Warning: Setting up fake worker."], "what it says of the font and the streams"
