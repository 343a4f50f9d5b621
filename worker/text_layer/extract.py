"""Extracts the text layer of a PDF page. Part of the sandboxed program, worker/rendering/rasterise.py."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.sandbox.messages import MAX_MESSAGE
from ocrfleet.sandbox.pdf import mupdf, pdf_errors

if TYPE_CHECKING:
    from ocrfleet.sandbox.pdf import PdfDocument

#: The most bytes of JSON for the words in a response; pictures have the rest. A newspaper page takes half of it.
_ROOM = MAX_MESSAGE * 7 // 8
#: The most pictures whose boxes are returned, the first ones drawn: some scanners cut a page into strips, none into so many.
_MOST_PICTURES = 1000
#: Decimals of a point: a hundredth is a thirtieth of a pixel at 300 dpi.
_DECIMALS = 2
#: Of a span's flags (TEXT_FONT_BOLD).
_BOLD = 16


def extract(document: PdfDocument, index: int) -> dict[str, Any]:
    """Return the layer for worker/text_layer/words.py, at most MAX_MESSAGE bytes of JSON. Raises PermanentError.

    Ligatures become letters; a character without a Unicode mapping becomes U+FFFD; words outside of the page are left out.
    """
    pymupdf = mupdf()
    page = document.page(index)
    with pdf_errors("the page's text can't be taken out: its content is damaged; export the PDF again"):
        page = document.uncropped(page)
        width, height = page.rect.width, page.rect.height
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise PermanentError(Reason.UNREADABLE, "the page has no size: its page box is damaged; export it again")
        # No flags: they keep ligatures and pictures, join hyphenated words, and use a glyph's number as a character.
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
    """Return the spans of each line, by the number of its block and the number of the line in it."""
    return {
        (block["number"], number): line["spans"]
        for block in textpage.extractDICT()["blocks"]
        for number, line in enumerate(block.get("lines", ()))
    }


def _font(spans: list[dict[str, Any]], box: list[float]) -> tuple[float, bool]:
    """Return the size, in points, and the weight of a word's font; 0 if it is unknown."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    for span in spans:
        left, top, right, bottom = span["bbox"]
        if left <= x <= right and top <= y <= bottom:
            bold = bool(span["flags"] & _BOLD) or "bold" in span["font"].lower()
            size = float(span["size"])
            return (round(size, _DECIMALS) if math.isfinite(size) else 0.0), bold
    return 0.0, False


def _on_page(box: Any, width: float, height: float) -> list[float] | None:
    """Return the part of a box (pymupdf.Rect) that is on the page; None without one."""
    if not all(math.isfinite(number) for number in box):
        return None
    x0, y0, x1, y1 = max(0.0, box.x0), max(0.0, box.y0), min(width, box.x1), min(height, box.y1)
    if x0 >= x1 or y0 >= y1:
        return None
    return [round(number, _DECIMALS) for number in (x0, y0, x1, y1)]
