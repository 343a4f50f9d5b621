"""Arranges the lines of a PDF's text layer into a page: reading order, and roles from fonts and positions."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from worker.engines.layout.blocks import arrange_in_order
from worker.engines.layout.parts import ArrangedPage
from worker.engines.layout.roles import Font

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.engines.layout.reading_order import Paragraph
    from worker.imaging.page_image import PageImage
    from worker.text_layer.trust import PrintedLine


def printed_page(lines: Sequence[PrintedLine], image: PageImage) -> ArrangedPage:
    """Return the page that the lines of a text layer make, which are in pixels of the page image and in reading order."""
    paragraphs: list[Paragraph] = []
    for _, block in groupby(lines, key=lambda line: line.paragraph):
        rows: Paragraph = []
        for line in block:
            if line.beside and rows:
                rows[-1].append(line.line)
            else:
                rows.append([line.line])
        paragraphs.append(rows)
    styles = {line.line.box: Font(line.size, bold=line.bold) for line in lines if line.size}
    words = {line.line: line.words for line in lines}
    return arrange_in_order(paragraphs, image.pixels, styles=styles or None, words=words)
