"""hOCR 1.2, one HTML file a document: pages, areas, paragraphs, lines and words (https://kba.github.io/hocr-spec/1.2/)."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from ocrfleet.errors import PermanentError
from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import PageResult, PageStatus, Role
from worker.formats.page_layout import Box, TextBlock, TextLine, around, page_layout
from worker.formats.source_names import page_source, source_name
from worker.formats.xml_text import xml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.formats.materials import Materials

_CAPABILITIES = "ocr_page ocr_carea ocr_par ocr_line ocr_header ocr_footer ocr_caption ocr_photo ocrx_word ocrp_wconf"
_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml">
<head>
<title>{document}</title>
<meta http-equiv="Content-Type" content="text/html; charset=utf-8" />
<meta name="ocr-system" content="ocrfleet {profile}" />
<meta name="ocr-capabilities" content="{capabilities}" />
<meta name="ocr-number-of-pages" content="{pages}" />
</head>
<body>
"""
#: The class of a line, by the role of its block.
_LINES = {
    Role.HEADER: "ocr_header",
    Role.FOOTER: "ocr_footer",
    Role.PAGE_NUMBER: "ocr_footer",
    Role.CAPTION: "ocr_caption",
}


class HocrWriter:
    """Writes one document to a stream, page by page."""

    def __init__(self, out: BinaryIO, _: Materials) -> None:
        self._out = out
        self._manifest: Manifest | None = None

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:  # noqa: ARG002 - the writer protocol
        if manifest.problem is not None:  # the specification wants a page
            raise PermanentError(manifest.problem.reason, f"it has no pages: {manifest.problem.detail}")
        self._manifest = manifest
        head = {
            "document": manifest.document,
            "profile": xml(manifest.profile),
            "capabilities": _CAPABILITIES,
            "pages": manifest.total,
        }
        self._out.write(_HEAD.format(**head).encode())

    def page(self, result: PageResult) -> None:
        assert self._manifest is not None  # noqa: S101 - `begin` comes first
        self._out.write("".join(_page(result, self._manifest)).encode())

    def end(self) -> None:
        self._out.write(b"</body>\n</html>\n")


def _page(result: PageResult, manifest: Manifest) -> Iterator[str]:
    source, number = page_source(manifest, result.page)
    name = source_name(source).replace('"', "")
    facts = [
        f'image "{name}"',
        f"bbox 0 0 {result.width_px or 0} {result.height_px or 0}",
        f"ppageno {result.page - 1}",
    ]
    if result.width_px and result.width_pt and result.height_px and result.height_pt:
        across, down = result.width_px / result.width_pt * 72, result.height_px / result.height_pt * 72
        facts.append(f"scan_res {round(across)} {round(down)}")
    if source.pages > 1:
        facts.append(f"x_source {name}#page={number}")
    yield f'<div class="ocr_page" id="page_{result.page}" title="{xml("; ".join(facts))}">\n'
    if result.status is PageStatus.FAILED:
        yield f"<!-- failed: {result.reason} -->\n"
    for index, block in enumerate(page_layout(result), 1):
        yield from _block(block, f"{result.page}_{index}")
    yield "</div>\n"


def _block(block: TextBlock, number: str) -> Iterator[str]:
    if block.role is Role.FIGURE:
        yield f'<div class="ocr_photo" id="photo_{number}" title="{_bbox(block.box)}"></div>\n'
    if not block.lines:
        return
    # Boxes of ink: those of a detector, and of a model's blocks, reach into their neighbours.
    box = _bbox(around(_inked(line) for line in block.lines))
    yield f'<div class="ocr_carea" id="block_{number}" title="{box}">\n'
    yield f'<p class="ocr_par" id="par_{number}" title="{box}">\n'
    for index, line in enumerate(block.lines, 1):
        yield _line(line, f"{number}_{index}", _LINES.get(block.role, "ocr_line"))
    yield "</p>\n</div>\n"


def _line(line: TextLine, number: str, kind: str) -> str:
    words = (
        f'<span class="ocrx_word" id="word_{number}_{index}" title="{_bbox(word.box)}'
        f'{"" if word.confidence is None else f"; x_wconf {round(100 * min(max(word.confidence, 0.0), 1.0))}"}">{xml(word.text)}</span>'
        for index, word in enumerate(line.words, 1)
    )
    return f'<span class="{kind}" id="line_{number}" title="{_bbox(_inked(line))}">{" ".join(words)}</span>\n'


def _inked(line: TextLine) -> Box:
    return around(word.box for word in line.words)


def _bbox(box: Box) -> str:
    """Return a box as hOCR has it: whole pixels, none below 0."""
    x0, y0, x1, y1 = (max(round(value), 0) for value in box)
    return f"bbox {x0} {y0} {x1} {y1}"
