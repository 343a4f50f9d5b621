"""Finds visible text on a page of a PDF: recognised words there would be duplicates. Runs in a sandbox."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING, Any

from ocrfleet.sandbox.pdf import pdf_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocrfleet.sandbox.pdf import PdfDocument

#: Name of invisible text in MuPDF's trace.
_INVISIBLE = 3
#: Maximum number of boxes in an answer, which stays below a megabyte.
_MOST = 20_000
#: Decimal places of shares of the page's width or height: less than a pixel.
_DECIMALS = 5
#: Maximum width of a space, in character heights.
_SPACE = 0.6
#: Characters for glyphs without a Unicode mapping.
_MEANINGLESS = frozenset({"Cc", "Cn", "Co", "Cs"})


def visible_text(document: PdfDocument, index: int) -> list[list[float]]:
    """Return the boxes of the visible text of a page, as shares of the page as displayed. Raises PermanentError."""
    page = document.page(index)
    with pdf_errors("the page's text can't be taken out: its content is damaged; export the PDF again"):
        page = document.uncropped(page)
        width, height = page.rect.width, page.rect.height
        boxes = []
        for span in page.get_texttrace():
            if span["type"] == _INVISIBLE or span["opacity"] == 0:
                continue
            for box in _runs(span["chars"]):
                x0, y0, x1, y1 = _displayed(box, page)
                if all(map(math.isfinite, (x0, y0, x1, y1))):
                    boxes.append([round(n, _DECIMALS) for n in (x0 / width, y0 / height, x1 / width, y1 / height)])
        return boxes[:_MOST]


def _runs(characters: Any) -> Iterator[tuple[float, float, float, float]]:
    """Yield the boxes of runs of text without a gap; unmapped characters are gaps."""
    box: list[float] = []
    for code, _, _, (x0, y0, x1, y1) in characters:
        character = chr(code) if 0 < code < 0x110000 else "\ufffd"  # noqa: PLR2004 - the end of Unicode
        if character.isspace():
            continue
        means = character != "\ufffd" and unicodedata.category(character) not in _MEANINGLESS
        if box and not (means and _continues(box, x0, y0, x1, y1)):
            yield box[0], box[1], box[2], box[3]
            box = []
        if means:
            box = [min(box[0], x0), min(box[1], y0), max(box[2], x1), max(box[3], y1)] if box else [x0, y0, x1, y1]
    if box:
        yield box[0], box[1], box[2], box[3]


def _continues(box: list[float], x0: float, y0: float, x1: float, y1: float) -> bool:
    """Return whether a character follows or adjoins the others within the width of a space."""
    near = _SPACE * max(y1 - y0, x1 - x0)
    return x0 - near <= box[2] and x1 + near >= box[0] and y0 <= box[3] and y1 >= box[1] and abs(y0 - box[1]) <= near


def _displayed(box: tuple[float, float, float, float], page: Any) -> tuple[float, float, float, float]:
    turned = page.rotation_matrix
    corners = [
        (x * turned.a + y * turned.c + turned.e, x * turned.b + y * turned.d + turned.f)
        for x, y in ((box[0], box[1]), (box[2], box[3]))
    ]
    (x0, y0), (x1, y1) = corners
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
