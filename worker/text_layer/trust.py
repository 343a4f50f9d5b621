"""Decides whether the text layer of a PDF page is trustworthy, and makes lines of it.

In doubt it is not: such a page is recognised, which only costs time. The numbers come from bench/text_layers.py.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import groupby, pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from ocrfleet.records import pages
from ocrfleet.records.pages import Line
from worker.text_layer.alignment import crowded, overlay, unseen
from worker.text_layer.vocabulary import known, longest_unknown, misspelt, unspaced, words_in
from worker.text_layer.words import TextLayerWords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.imaging.page_image import PageImage
    from worker.text_layer.alignment import Alignment
    from worker.text_layer.words import Box, LayerWord

__all__ = ["PrintedLine", "TextLayerWords", "distrust", "printed_lines", "reading"]

#: The largest share of a layer's characters without a Unicode mapping: TeX's parts of large brackets have none, and 106 of 117
#: pages of mathematics have fewer.
MOST_UNMAPPED = 0.02
#: The largest share of its letters in scripts without spaces, whose words can't be separated.
MOST_UNSPACED = 0.05
#: A page has at least so many different common words of one language, …
FEWEST_KNOWN = 3
#: … and their share of all different words. Real text has 0.10 to 0.50 (Latin 0.05 to 0.09), shifted text 0.03 at most.
LEAST_KNOWN = 0.05
#: The most words in succession without a common one; more mean that one of the page's fonts is mapped wrongly. Right layers have
#: at most 22; Latin and lists of names have up to 53.
LONGEST_UNKNOWN = 60
#: The largest share of common words with one wrong letter, on a scan, whose layer was written by another OCR engine. Right texts
#: have 0.05 to 0.2, because some words resemble others; with a tenth of the letters wrong they have 0.25 to 0.4.
MOST_MISSPELT_ON_SCAN = 0.25
#: The smallest share of the words, by width, that have ink under them: right layers have 1.00, those of other pages mostly less
#: than 0.9.
LEAST_ON_INK = 0.95
#: The smallest share of the print-like ink that has words over it: right layers have at least 0.87, except on pages full of
#: figures.
LEAST_COVERED = 0.85
#: The fewest letters of a stamp in a picture without words over it. A signature may have as many: such a page is recognised.
FEWEST_IN_PICTURES = 3
#: The largest darkness of gaps relative to words: right layers have 0.0 to 0.1, up to 0.4 on page images of 1,024 pixels; wrong
#: ones 0.5 to 2.
DARKEST_GAPS = 0.45
#: The largest area of the words' boxes relative to the area that they cover: right layers have at most 1.05; a page with text
#: that an OCR engine has processed again has 2.
MOST_PILED = 1.3

_PILED = "the words of the text layer overlap each other, as if the layer were there twice"
#: Categories of invisible characters: control, private use, unassigned, surrogate.
_NO_CHARACTER = frozenset({"Cc", "Co", "Cn", "Cs"})
_UNMAPPED = "\N{REPLACEMENT CHARACTER}"
#: Two lines are in one row if they overlap by this share of the smaller height.
_SHARED = 0.5
#: The smallest gap between two pieces of a row, in heights of a word's box: no justified line has such spaces.
_PIECE = 1.5


class PrintedLine(NamedTuple):
    """A line of the text layer."""

    line: Line
    #: number of MuPDF's block that the line is in
    paragraph: int
    #: whether it is in the same row as the line before
    beside: bool
    #: median font size of its words, in points; 0 if unknown
    size: float
    bold: bool
    #: in pixels of the page image
    words: tuple[pages.Word, ...]


def distrust(layer: TextLayerWords, image: PageImage) -> str | None:
    """Return why the layer is not trustworthy as the text of the page on `image`; None if it is."""
    if not layer.words:
        return "the page has no text layer"
    if not layer.whole:
        return "the text layer is damaged or far too large"
    texts = [word.text for word in layer.words]
    words = words_in(texts)
    why = _why_no_words(texts, words)
    if why is not None:
        return why
    if crowded(layer):
        return _PILED
    lies = overlay(layer, image)
    why = _why_elsewhere(lies) or _why_not_what_is_seen(lies)
    if why is None and lies.scan and (share := misspelt(words)) > MOST_MISSPELT_ON_SCAN:
        return f"{share:.0%} of the common words of the text layer have a letter wrong"
    return why


def printed_lines(layer: TextLayerWords, image: PageImage) -> list[PrintedLine]:
    """Return the lines of the layer, with boxes in pixels of the page image, and with their fonts.

    Words that are invisible on the page are left out.

    The order is MuPDF's: on the ground truth of bench/text_layers.py that of worker/engines/layout/reading_order.py has more
    errors. Pieces of a row, such as a table's cells, are lines that follow each other.
    """
    across, down = image.width / layer.width_pt, image.height / layer.height_pt
    lines: list[PrintedLine] = []
    hidden = unseen(layer, image)
    shown = [word for word, is_hidden in zip(layer.words, hidden, strict=True) if not is_hidden]
    for number, block in enumerate(_blocks(shown)):
        before: Box | None = None
        for text, box, words in block:
            lines.append(
                PrintedLine(
                    Line(text=text, box=_scaled(box, across, down)),
                    paragraph=number,
                    beside=before is not None and _in_one_row(before, box),
                    size=median(word.size for word in words),
                    bold=all(word.bold for word in words),
                    words=tuple(
                        pages.Word(seen, _rounded(_scaled(word.box, across, down)))
                        for word in words
                        if (seen := _seen(word.text))
                    ),
                )
            )
            before = box
    return lines


def reading(layer: TextLayerWords, image: PageImage) -> tuple[str, tuple[Line, ...]]:
    """Return the page's text, with empty lines between paragraphs, and its lines, as `printed_lines` finds them.

    Pieces of a row come on one line of text.
    """
    printed = printed_lines(layer, image)
    text = ""
    for before, line in zip([None, *printed], printed, strict=False):
        parted = (
            "" if before is None else "\n\n" if before.paragraph != line.paragraph else " " if line.beside else "\n"
        )
        text += parted + line.line.text
    return text, tuple(line.line for line in printed)


def _why_no_words(texts: Sequence[str], words: Sequence[str]) -> str | None:
    characters = "".join(texts)
    unmapped = sum(
        character == _UNMAPPED or unicodedata.category(character) in _NO_CHARACTER for character in characters
    )
    if unmapped > MOST_UNMAPPED * len(characters):
        return f"{unmapped} of the {len(characters)} characters of the text layer have no Unicode mapping"
    if unspaced(characters) > MOST_UNSPACED:
        return "the text layer is in a script without spaces, whose words can't be checked"
    common, distinct = known(words), len(set(words))
    if common < max(FEWEST_KNOWN, LEAST_KNOWN * distinct):
        return f"of the {distinct} different words of the text layer, at most {common} are common words of one language"
    run = longest_unknown(words)
    if run > LONGEST_UNKNOWN:
        return f"{run} words of the text layer follow each other without a common word of its language"
    return None


def _why_elsewhere(lies: Alignment) -> str | None:
    if lies.piled > MOST_PILED:
        return _PILED
    if lies.on_ink < LEAST_ON_INK:
        return f"{1 - lies.on_ink:.0%} of the text layer is where the page has no ink"
    if lies.covered < LEAST_COVERED:
        return f"{1 - lies.covered:.0%} of the print on the page is not in the text layer"
    if lies.gaps > DARKEST_GAPS:
        return "the words of the text layer end elsewhere than the words on the page"
    return None


def _why_not_what_is_seen(lies: Alignment) -> str | None:
    if lies.covered_words:
        return f"{lies.covered_words} words of the text layer are covered and can't be seen on the page"
    if lies.letters_in_pictures >= FEWEST_IN_PICTURES:
        return f"a picture on the page seems to have {lies.letters_in_pictures} letters that the text lacks"
    return None


def _blocks(words: Sequence[LayerWord]) -> Iterator[list[tuple[str, Box, list[LayerWord]]]]:
    """Yield the lines of each block: text, box and words."""
    for _, block in groupby(words, key=lambda word: word.block):
        lines = [piece for _, line in groupby(block, key=lambda word: word.line) for piece in _pieces(list(line))]
        texts = [" ".join(filter(None, (_seen(word.text) for word in line))) for line in lines]
        found = [(text, _around(line), line) for text, line in zip(texts, lines, strict=True) if text]
        if found:
            yield found


def _pieces(line: list[LayerWord]) -> list[list[LayerWord]]:
    """Split a line at wide gaps: between the cells of a table, or between a running head and its number."""
    pieces = [line[:1]]
    for before, word in pairwise(line):
        x0, y0, x1, y1 = before.box
        wide = max(word.box[0] - x1, x0 - word.box[2]) > _PIECE * (y1 - y0)
        if wide and _in_one_row(before.box, word.box):
            pieces.append([word])
        else:
            pieces[-1].append(word)
    return pieces


def _seen(text: str) -> str:
    """Return the text without invisible characters; those of private use may be visible."""
    return "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cn", "Cs"))


def _scaled(box: Box, across: float, down: float) -> Box:
    x0, y0, x1, y1 = box
    return x0 * across, y0 * down, x1 * across, y1 * down


def _rounded(box: Box) -> Box:
    x0, y0, x1, y1 = (round(value, 1) for value in box)
    return x0, y0, x1, y1


def _around(words: Sequence[LayerWord]) -> Box:
    x0, y0, x1, y1 = zip(*(word.box for word in words), strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _in_one_row(before: Box, box: Box) -> bool:
    """Say whether two lines are beside each other, in reading direction or against it."""
    shared = min(before[3], box[3]) - max(before[1], box[1])
    apart = before[2] <= box[0] or box[2] <= before[0]
    return apart and shared > _SHARED * min(before[3] - before[1], box[3] - box[1])
