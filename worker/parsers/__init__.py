"""What models write, made into a page's text and blocks: one file for each way of writing."""

from __future__ import annotations

from ocrfleet.profiles.profile import Parser
from worker.parsers import dots, grounding, olmocr, paddleocr
from worker.parsers.parsed import Parsed

__all__ = ["Parsed", "parse"]


def parse(parser: Parser, output: str, *, width_px: int, height_px: int) -> Parsed:
    """Return what a model wrote about a page image of this size. Never raises, and takes time in proportion to the output.

    The blocks of a page, in order, are all of its text. What the model put into none is a block without a label.
    """
    output = output.encode(errors="replace").decode()  # half a surrogate pair can't be stored
    match parser:
        case Parser.GROUNDING:
            return grounding.parse(output, width_px=width_px, height_px=height_px)
        case Parser.DOTS:
            return dots.parse(output, width_px=width_px, height_px=height_px)
        case Parser.OLMOCR:
            return olmocr.parse(output)
        case Parser.PADDLEOCR:
            return paddleocr.parse(output)
        case Parser.TEXT:
            return Parsed(text=output)
