"""Parsers of model output: from the text of a model to a page's text and blocks. One file for each output format."""

from __future__ import annotations

from ocrfleet.profiles.profile import Parser
from worker.parsers import dots, grounding, olmocr, paddleocr
from worker.parsers.parsed import Parsed

__all__ = ["Parsed", "parse"]


def parse(parser: Parser, output: str, *, width_px: int, height_px: int) -> Parsed:
    """Parse a model's output for a page image of this size in pixels. Never raises; the time is linear in the output.

    The blocks of a page, in order, contain all of its text. Text outside of the model's blocks becomes a block without a
    label.
    """
    output = output.encode(errors="replace").decode()  # a lone surrogate can't be stored
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
