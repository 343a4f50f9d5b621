"""The text layer of a PDF page as the sandbox returns it: words and their boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ocrfleet.errors import PageFaultError, Reason

#: x0, y0, x1, y1
Box = tuple[float, float, float, float]

#: How far a box may extend over the page's edge, in points: it was cut at the edge and rounded afterwards.
_ROUNDED = 0.01


@dataclass(frozen=True, slots=True)
class LayerWord:
    """A word and its box, in points of the page as displayed, origin top left."""

    text: str
    box: Box
    #: number of MuPDF's block that the word is in and, within that, of its line
    block: int
    line: int
    #: of its font, in points; 0 where it is not known
    size: float = 0.0
    bold: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLayerWords:
    """A page's text layer, not yet checked. Boxes are in points of the page as displayed: rotated and cropped."""

    #: the page as displayed, in points
    width_pt: float
    height_pt: float
    #: in MuPDF's order: mostly that in which the page draws them
    words: tuple[LayerWord, ...] = ()
    #: the boxes of drawn pictures
    pictures: tuple[Box, ...] = ()
    #: nothing is missing: the layer was not too large, and the page's content is not damaged
    whole: bool = True


#: The layer of a source that is no PDF.
NO_LAYER = TextLayerWords(width_pt=1.0, height_pt=1.0)


def layer_of(answer: dict[str, Any]) -> TextLayerWords:
    """Make a layer of the sandbox's response, which is checked completely. Raises PageFaultError.

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
