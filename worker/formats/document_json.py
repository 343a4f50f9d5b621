"""The document as JSON: for each page its status, reason, text, lines and blocks with boxes, and its engine.

Words are left out, as they would double it: ALTO, hOCR and PAGE have them.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from pydantic_core import to_json

from ocrfleet.markdown import latex
from ocrfleet.markdown.escape import figure_path
from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import Block, PageResult
from worker.formats.materials import Materials
from worker.formats.page_text import plain_text

COORDINATES = (
    "boxes are [x0, y0, x1, y1] in pixels of the page image as displayed (rotation applied), origin top left, y down; "
    "times width_pt/width_px they are points of that page; a block's points are its boxes in points of the page before it "
    "was rotated, from the top left of its crop box, y down"
)

Box = tuple[float, float, float, float]


class JsonWriter:
    """Writes one document to a stream, page by page, one line for each page."""

    def __init__(self, out: BinaryIO, _: Materials | None = None) -> None:
        self._out = out
        self._separator = b"\n"
        self._document = ""

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:
        self._document = manifest.document
        head = {
            "schema_version": 1,
            "document": manifest.document,
            "status": status,
            "problem": manifest.problem.model_dump(mode="json") if manifest.problem else None,
            "profile": manifest.profile,
            "profile_digest": manifest.profile_digest,
            "sources": [
                {"sha256": source.sha256, "kind": source.kind, "pages": source.pages} for source in manifest.sources
            ],
            "coordinates": COORDINATES,
        }
        text = json.dumps(head, ensure_ascii=False, indent=1)
        self._out.write(text.removesuffix("\n}").encode() + b',\n "pages": [')

    def page(self, result: PageResult) -> None:
        if result.markdown:
            result = result.model_copy(update={"text": latex.shown(result.text)})
        facts = result.model_dump_json(exclude={"schema_version", "blocks", "words"}).removesuffix("}").encode()
        blocks = to_json([self._block(block, result) for block in result.blocks])
        self._out.write(self._separator + b"  " + facts + b',"blocks":' + blocks + b"}")
        self._separator = b",\n"

    def end(self) -> None:
        self._out.write(b"\n ]\n}\n")

    def _block(self, block: Block, page: PageResult) -> dict[str, Any]:
        facts = block.model_dump()
        if not block.made:
            facts["markdown"] = latex.shown(block.markdown)
        facts["text"] = plain_text(block)
        facts["points"] = points(page, block.boxes)
        if block.figure is not None:
            facts["figure"] = figure_path(self._document, block.figure)
        return facts


def points(page: PageResult, boxes: tuple[Box, ...]) -> list[Box] | None:
    """Return boxes in points of the unrotated page, rounded to 0.01; None if the page's size is unknown.

    The origin is the top left of the crop box and y points down, as in PyMuPDF after its `derotation_matrix`.
    """
    if not (page.width_px and page.height_px and page.width_pt and page.height_pt):
        return None
    x, y = page.width_pt / page.width_px, page.height_pt / page.height_px
    return [
        _turned_back((x0 * x, y0 * y, x1 * x, y1 * y), page.width_pt, page.height_pt, page.rotation)
        for x0, y0, x1, y1 in boxes
    ]


def _turned_back(box: Box, width: float, height: float, rotation: int) -> Box:
    """Return a box of the displayed page, of this size, in coordinates of the page before its clockwise rotation."""
    x0, y0, x1, y1 = box
    match rotation:
        case 90:
            x0, y0, x1, y1 = y0, width - x1, y1, width - x0
        case 180:
            x0, y0, x1, y1 = width - x1, height - y1, width - x0, height - y0
        case 270:
            x0, y0, x1, y1 = height - y1, x0, height - y0, x1
    return round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2)
