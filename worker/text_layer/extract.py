"""Take a PDF page's own text out of it: part of the sandboxed program, worker/rendering/rasterise.py."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.sandbox.pdf import mupdf, pdf_errors
from ocrfleet.sandbox.sandbox import MAX_MESSAGE

if TYPE_CHECKING:
    from ocrfleet.sandbox.pdf import PdfDocument

#: Room for words in an answer, in bytes of JSON: pictures have the rest. A page of a newspaper takes half of it.
_ROOM = MAX_MESSAGE * 7 // 8
#: Pictures whose places are told, those drawn first: some scanners cut a page into strips, none into so many.
_MOST_PICTURES = 1000
#: Decimals of a point: a hundredth is a thirtieth of a pixel at 300 dpi.
_DECIMALS = 2
#: Of a span's flags (TEXT_FONT_BOLD).
_BOLD = 16


def extract(document: PdfDocument, index: int) -> dict[str, Any]:
    """Return what worker/text_layer/words.py makes a Layer of, at most MAX_MESSAGE bytes of JSON. Raises PermanentError.

    Ligatures come as letters; a character that the font maps to nothing is U+FFFD; what lies beside the page is left out.
    """
    pymupdf = mupdf()
    page = document.page(index)
    with pdf_errors("the page's text can't be taken out: its content is damaged; export the PDF again"):
        page = document.uncropped(page)
        width, height = page.rect.width, page.rect.height
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise PermanentError(Reason.UNREADABLE, "the page has no size: its page box is damaged; export it again")
        # No flags: they keep ligatures and pictures, join hyphenated words, and take a glyph's number for a character.
        textpage = page.get_textpage(flags=0)
        found = textpage.extractWORDS()
        spans = _spans(textpage)
        words: list[list[Any]] = []
        room = _ROOM
        for *box, text, block, line, _ in found:
            on_page = _on_page(pymupdf.Rect(box) * page.rotation_matrix, width, height)
            if on_page is None:
                continue
            word = [text, on_page, block, line, *_font(spans.get((block, line), []), box)]
            room -= len(json.dumps(word)) + 2
            if room < 0:
                break
            words.append(word)
        drawn = [box for kind, box, *_ in page.get_bboxlog() if "image" in kind]
        pictures = [
            on_page
            for box in drawn[:_MOST_PICTURES]
            if (on_page := _on_page(pymupdf.Rect(box) * page.rotation_matrix, width, height)) is not None
        ]
        whole = room >= 0 and len(drawn) <= _MOST_PICTURES
    return {"width_pt": width, "height_pt": height, "words": words, "pictures": pictures, "whole": whole}


def _spans(textpage: Any) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Return the stretches of one font of each line, by the numbers of its block and, in that, of the line."""
    return {
        (block["number"], number): line["spans"]
        for block in textpage.extractDICT()["blocks"]
        for number, line in enumerate(block.get("lines", ()))
    }


def _font(spans: list[dict[str, Any]], box: list[float]) -> tuple[float, bool]:
    """Return the size, in points, and the weight of the font that a word is set in; 0 where it can't be told."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    for span in spans:
        left, top, right, bottom = span["bbox"]
        if left <= x <= right and top <= y <= bottom:
            bold = bool(span["flags"] & _BOLD) or "bold" in span["font"].lower()
            size = float(span["size"])
            return (round(size, _DECIMALS) if math.isfinite(size) else 0.0), bold
    return 0.0, False


def _on_page(box: Any, width: float, height: float) -> list[float] | None:
    """Return the part of a box (pymupdf.Rect) that lies on the page; None where there is none."""
    if not all(math.isfinite(number) for number in box):
        return None
    x0, y0, x1, y1 = max(0.0, box.x0), max(0.0, box.y0), min(width, box.x1), min(height, box.y1)
    if x0 >= x1 or y0 >= y1:
        return None
    return [round(number, _DECIMALS) for number in (x0, y0, x1, y1)]
