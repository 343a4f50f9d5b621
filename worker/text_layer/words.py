"""The text that a PDF page has already, as it comes out of the sandbox: words and where they stand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ocrfleet.errors import PageFaultError, Reason

#: x0, y0, x1, y1
Box = tuple[float, float, float, float]

#: How far a box may reach over the page's edge, in points: it was cut at the edge, and rounded after that.
_ROUNDED = 0.01


@dataclass(frozen=True, slots=True)
class LayerWord:
    """A word and its box, in points of the page as displayed, origin top left."""

    text: str
    box: Box
    #: which words stand in one block and, within that, on one line, as MuPDF sees it: equal numbers
    block: int
    line: int
    #: of its font, in points; 0 where it is not known
    size: float = 0.0
    bold: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLayerWords:
    """A page's own text, not yet trusted. Boxes are in points of the page as displayed: rotated and cropped."""

    #: the page as displayed, in points
    width_pt: float
    height_pt: float
    #: in MuPDF's order: that in which the page draws them, by and large
    words: tuple[LayerWord, ...] = ()
    #: where pictures are drawn
    pictures: tuple[Box, ...] = ()
    #: nothing is missing: neither was there too much of it, nor is the page's content damaged
    whole: bool = True


#: What a source has that is no PDF.
NO_LAYER = TextLayerWords(width_pt=1.0, height_pt=1.0)


def layer_of(answer: dict[str, Any]) -> TextLayerWords:
    """Make a layer of what the sandbox answered, believing nothing of it. Raises PageFaultError.

    Every number of the layer is finite, and every box has its corners in order and lies on the page.
    """
    match answer:
        case {
            "width_pt": float(width),
            "height_pt": float(height),
            "words": list(words),
            "pictures": list(pictures),
            "whole": bool(whole),
        } if 0 < width < math.inf and 0 < height < math.inf:
            page = width, height
            return TextLayerWords(
                width_pt=width,
                height_pt=height,
                words=tuple(_word(word, page) for word in words),
                pictures=tuple(_box(picture, page) for picture in pictures),
                whole=whole,
            )
        case _:
            raise _nonsense()


def _word(value: Any, page: tuple[float, float]) -> LayerWord:
    match value:
        case [str(text), list(box), int(block), int(line), float(size), bool(bold)] if text and math.isfinite(size):
            # Half a surrogate pair can't be stored.
            return LayerWord(text.encode(errors="replace").decode(), _box(box, page), block, line, max(size, 0.0), bold)
        case _:
            raise _nonsense()


def _box(value: Any, page: tuple[float, float]) -> Box:
    match value:
        case [float(x0), float(y0), float(x1), float(y1)] if (
            0 <= x0 <= x1 <= page[0] + _ROUNDED and 0 <= y0 <= y1 <= page[1] + _ROUNDED
        ):
            return x0, y0, x1, y1
        case _:
            raise _nonsense()


def _nonsense() -> PageFaultError:
    return PageFaultError(Reason.RENDER_CRASHED, "the decoder answered nonsense: the file is probably damaged")
