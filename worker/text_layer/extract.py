"""Take a PDF page's own text out of it: part of the sandboxed program, worker/rendering/rasterise.py."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.sandbox.decoders import lost_pdf_content, mupdf, pdf_errors
from ocrfleet.sandbox.sandbox import MAX_MESSAGE

if TYPE_CHECKING:
    from ocrfleet.sandbox.decoders import PdfDocument

#: Room for words in an answer, in bytes of JSON: pictures have the rest. A page of a newspaper takes half of it.
_ROOM = MAX_MESSAGE * 7 // 8
#: Pictures whose places are told, those drawn first: some scanners cut a page into strips, none into so many.
_MOST_PICTURES = 1000
#: Decimals of a point: a hundredth is a thirtieth of a pixel at 300 dpi.
_DECIMALS = 2


def extract(document: PdfDocument, index: int) -> dict[str, Any]:
    """Return what worker/text_layer/words.py makes a Layer of, at most MAX_MESSAGE bytes of JSON. Raises PermanentError.

    Ligatures come as letters; a character that the font maps to nothing is U+FFFD; what lies beside the page is left out.
    """
    pymupdf = mupdf()
    page = document.page(index)
    with pdf_errors("the page's text can't be taken out: its content is damaged; export the PDF again"):
        width, height = page.rect.width, page.rect.height
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise PermanentError(Reason.UNREADABLE, "the page has no size: its page box is damaged; export it again")
        # No flags: they keep ligatures and pictures, join hyphenated words, and take a glyph's number for a character.
        found = page.get_textpage(flags=0).extractWORDS()
        words: list[list[Any]] = []
        room = _ROOM
        for *box, text, block, line, _ in found:
            on_page = _on_page(pymupdf.Rect(box) * page.rotation_matrix, width, height)
            if on_page is None:
                continue
            word = [text, on_page, block, line]
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
        whole = room >= 0 and len(drawn) <= _MOST_PICTURES and not lost_pdf_content()
    return {"width_pt": width, "height_pt": height, "words": words, "pictures": pictures, "whole": whole}


def _on_page(box: Any, width: float, height: float) -> list[float] | None:
    """Return the part of a box (pymupdf.Rect) that lies on the page; None where there is none."""
    if not all(math.isfinite(number) for number in box):
        return None
    x0, y0, x1, y1 = max(0.0, box.x0), max(0.0, box.y0), min(width, box.x1), min(height, box.y1)
    if x0 >= x1 or y0 >= y1:
        return None
    return [round(number, _DECIMALS) for number in (x0, y0, x1, y1)]
