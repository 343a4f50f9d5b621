"""Read a page with PP-OCR's models: find its lines, rotate a page or a region that is not upright, and recognise each line."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from ocrfleet.records.pages import Line
from worker.engines import line_words, second_reading
from worker.engines.layout import rules
from worker.engines.layout.blocks import arrange
from worker.engines.layout.gutters import around, cut_at_gutters, cut_long, extents, skew
from worker.engines.layout.orientation import SidewaysRegion, back, mostly_tall, sideways_regions, tall_lines
from worker.engines.layout.parts import ArrangedPage
from worker.engines.line_finder import LineFinder
from worker.engines.line_signs import consistent
from worker.engines.line_spaces import with_spaces
from worker.engines.line_strokes import counted
from worker.engines.scripts import SeenLine
from worker.imaging.marks import find_marks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ocrfleet.records.pages import Word
    from worker.engines.layout.geometry import Box
    from worker.engines.line_words import Letter

#: The model reads a low quotation mark as two commas; no word begins with two commas.
_LOW_QUOTE = re.compile(r"(?<![^\s(\[]),, ?(?=\w)")
#: The model writes a Roman numeral as one character, which a search for letters does not find.
_NUMERALS = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0x2160, 0x2180)}
#: A line with less confidence is mostly not text.
_MIN_CONFIDENCE = 0.5
#: The same for lines of the second pass with at most so many letters: dirt is mostly read as one character.
_SHORT, _MIN_CONFIDENCE_SHORT = 2, 0.7
#: A page with less confidence than the first may be upside down; it is, if its lines have at least the second when rotated. On
#: ten pages of the corpus, upright handwriting has 0.82, black letter 0.92, modern print 0.99; upside down, 0.45 to 0.72.
_SURE = 0.8
#: The number of lines that are read to determine the rotation of a page or a region, and the fewest letters and digits in them.
_SAMPLE, _FEWEST_LETTERS = 8, 3
#: The margin of a region that is rotated, in widths of its lines.
_MARGIN = 1.0


@dataclass(frozen=True, slots=True)
class _Sample:
    """The result of reading a few lines in one rotation."""

    letters: int
    confidence: float

    @property
    def sure(self) -> bool:
        return self.letters >= _FEWEST_LETTERS and self.confidence >= _SURE


@dataclass(frozen=True, slots=True)
class _Reading:
    """The lines read of an image in one rotation, in no order."""

    #: with their words
    lines: dict[Line, tuple[Word, ...]]
    #: regions that lie sideways: their boxes and their arranged content
    turned: tuple[tuple[Box, ArrangedPage], ...]
    #: 0..1: the mean over all lines that were found, kept or not, weighted by length
    confidence: float
    #: skew in degrees, positive when lines sink to the right
    angle: float


class RapidOcrReader:
    """Reads pages with RapidOCR. Images are BGR, uint8, shape (height, width, 3)."""

    def __init__(self, ocr: Any, *, narrowed: float = 1.0) -> None:
        self._ocr = ocr
        self._narrowed = narrowed
        self._finder = LineFinder(ocr)
        #: the lines that were recognised, whatever was read of them; boxes refer to the page as it was given
        self.seen: list[SeenLine] = []
        #: by how many quarters, counter-clockwise, the page is turned to be read
        self.quarter = 0

    def read(self, pixels: NDArray[np.uint8]) -> ArrangedPage:
        """Read a page in any rotation. Boxes refer to the page as it was given."""
        quads, again = self._lines(pixels)
        if mostly_tall(quads):
            quarter = self._quarter(pixels, quads[tall_lines(quads)])
            if quarter:
                return self._read_turned(pixels, quarter)
        reading = self._read_lines(pixels, quads, again)
        if reading.confidence < _SURE and self._is_upside_down(pixels, quads):
            return self._read_turned(pixels, 2)
        return _arranged(reading, pixels)

    def _lines(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        grey = cast("NDArray[np.uint8]", cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))
        return self._finder.find(pixels, find_marks(grey))

    def _read_turned(self, pixels: NDArray[np.uint8], quarter: int) -> ArrangedPage:
        height, width = pixels.shape[:2]
        self.seen, self.quarter = [], quarter
        turned = np.ascontiguousarray(np.rot90(pixels, quarter))
        page = _arranged(self._read_lines(turned, *self._lines(turned)), turned)
        place = functools.partial(back, quarter=quarter, width=width, height=height)
        self.seen = [line._replace(box=place(line.box)) for line in self.seen]
        return page.moved(place)

    def _read_lines(
        self, pixels: NDArray[np.uint8], quads: NDArray[np.float64], again: NDArray[np.bool_], *, whole: bool = True
    ) -> _Reading:
        """Read the lines that were found. `again` marks those of the second pass; `whole` is false for a region of a page."""
        regions = sideways_regions(quads) if whole and not mostly_tall(quads) else []
        turned = [
            (region, page) for region in regions if (page := self._read_region(pixels, quads, region)) is not None
        ]
        upright = np.ones(len(quads), np.bool_)
        for region, _ in turned:
            upright[list(region.lines)] = False
        angle = skew(quads[upright])
        lines, confidences, lengths = self._recognise(pixels, quads[upright & ~again], angle=angle)
        more = self._recognise(pixels, quads[upright & again], angle=angle, strict=True)
        confidences, lengths = confidences + more[1], lengths + more[2]
        confidence = float(np.average(confidences, weights=lengths)) if confidences else 1.0
        return _Reading(lines | more[0], tuple((region.box, page) for region, page in turned), confidence, angle)

    def _read_region(
        self, pixels: NDArray[np.uint8], quads: NDArray[np.float64], region: SidewaysRegion
    ) -> ArrangedPage | None:
        """Rotate a region upright and return its content; None if that is no text."""
        tall = quads[list(region.tall)]
        quarter = self._quarter(pixels, tall)
        if not quarter:
            return None
        margin = _MARGIN * float(np.median(np.ptp(tall, axis=1).min(axis=1)))
        x0, y0 = (max(int(side - margin), 0) for side in region.box[:2])
        x1, y1 = min(int(region.box[2] + margin), pixels.shape[1]), min(int(region.box[3] + margin), pixels.shape[0])
        part = pixels[y0:y1, x0:x1].copy()
        others = np.delete(quads, list(region.lines), axis=0) - (x0, y0)
        paper = np.median(part[::4, ::4].reshape(-1, 3), axis=0).tolist()
        cv2.fillPoly(part, list(np.round(others).astype(np.int32)), paper)
        turned = np.ascontiguousarray(np.rot90(part, quarter))
        before = len(self.seen)
        page = _arranged(self._read_lines(turned, *self._lines(turned), whole=False), turned)
        place = functools.partial(back, quarter=quarter, width=x1 - x0, height=y1 - y0, corner=(x0, y0))
        self.seen[before:] = [line._replace(box=place(line.box)) for line in self.seen[before:]]
        return page.moved(place) if page.lines else None

    def _recognise(
        self, pixels: NDArray[np.uint8], quads: NDArray[np.float64], *, angle: float, strict: bool = False
    ) -> tuple[dict[Line, tuple[Word, ...]], list[float], list[float]]:
        """Return the lines that have text, with their words, and the confidence and the length of all lines."""
        if not len(quads):
            return {}, [], []
        crops, quads, views = cut_at_gutters(
            self._finder.crops(pixels, quads), quads, angle, () if strict else rules.find(pixels).down
        )
        crops, quads, views = cut_long(crops, quads, views)
        narrow = [second_reading.narrowed(crop, self._narrowed) for crop in crops] if self._narrowed != 1 else crops
        read = self._ocr.recognize_txt(narrow)
        self.seen += [
            SeenLine(around(quad), text, float(score), word.script_scores)
            for quad, text, score, word in zip(quads, read.txts, read.scores, read.word_results, strict=True)
        ]
        lines: dict[Line, tuple[Word, ...]] = {}
        for number, letters in enumerate(self._read_again(_letters(read), crops)):
            confidence = float(np.mean([letter.confidence for letter in letters])) if letters else 0.0
            if _is_text("".join(letter.text for letter in letters).strip(), confidence, strict=strict):
                seen = _plain(consistent(with_spaces(counted(letters, crops[number]), crops[number])))
                text = "".join(letter.text for letter in seen)
                line = Line(text=text, box=around(quads[number]), confidence=round(confidence, 4))
                lines[line] = line_words.words(seen, crops[number], views[number])
        return lines, [float(score) for score in read.scores], (extents(quads)[0] + 1).tolist()

    def _read_again(self, first: list[list[Letter]], crops: Sequence[NDArray[np.uint8]]) -> list[list[Letter]]:
        """Return the letters of each line, of the better one of two readings where the first is doubtful."""
        again = list(second_reading.doubtful(first, crops)) if self._narrowed == 1 else []
        if not again:
            return first
        second = _letters(self._ocr.recognize_txt([second_reading.narrowed(crops[number]) for number in again]))
        better = {
            number: second_reading.chosen(first[number], other, crops[number])
            for number, other in zip(again, second, strict=True)
        }
        return [better.get(number, letters) for number, letters in enumerate(first)]

    def _quarter(self, pixels: NDArray[np.uint8], tall: NDArray[np.float64]) -> int:
        """Return by how many quarter turns, counter-clockwise, lines that run up or down must be rotated: 1, 3, or 0."""
        crops = self._finder.crops(pixels, tall[:_SAMPLE])  # those are turned by one
        samples = {1: self._sample(crops), 3: self._sample([np.rot90(crop, 2) for crop in crops])}
        best = max(samples, key=lambda quarter: samples[quarter].confidence)
        return best if samples[best].sure else 0

    def _is_upside_down(self, pixels: NDArray[np.uint8], quads: NDArray[np.float64]) -> bool:
        longest = quads[np.argsort(-extents(quads)[0], kind="stable")[:_SAMPLE]] if len(quads) else quads
        crops = self._finder.crops(pixels, longest)
        turned = self._sample([np.rot90(crop, 2) for crop in crops])
        return turned.sure and turned.confidence > self._sample(crops).confidence

    def _sample(self, crops: Sequence[NDArray[np.uint8]]) -> _Sample:
        if not crops:
            return _Sample(0, 0.0)
        read = self._ocr.recognize_txt([np.ascontiguousarray(crop) for crop in crops])
        lengths = [crop.shape[1] for crop in crops]
        letters = sum(sum(map(str.isalnum, text)) for text in read.txts)
        return _Sample(letters, float(np.average(read.scores, weights=lengths)))


def _letters(read: Any) -> list[list[Letter]]:
    """Return the letters of each line; `read` is RapidOCR's result."""
    return [line_words.letters(text, seen) for text, seen in zip(read.txts, read.word_results, strict=True)]


def _plain(read: Sequence[Letter]) -> list[Letter]:
    """Return a line's letters as people write them, without spaces at its ends."""
    text = "".join(letter.text for letter in read)
    begin, end = len(text) - len(text.lstrip()), len(text.rstrip())
    found: list[Letter] = []
    place = begin
    for quote in _LOW_QUOTE.finditer(text, begin, end):
        found += [*read[place : quote.start()], read[quote.start()]._replace(text="\N{DOUBLE LOW-9 QUOTATION MARK}")]
        place = quote.end()
    return [letter._replace(text=letter.text.translate(_NUMERALS)) for letter in (*found, *read[place:end])]


def _is_text(text: str, confidence: float, *, strict: bool) -> bool:
    """Say whether a line's text is kept. `strict` is for lines of the second pass, which may be dirt."""
    letters = sum(map(str.isalnum, text))
    if strict and letters <= _SHORT:
        return letters > 0 and confidence >= _MIN_CONFIDENCE_SHORT
    return bool(text) and confidence >= _MIN_CONFIDENCE


def _arranged(reading: _Reading, pixels: NDArray[np.uint8]) -> ArrangedPage:
    rgb = cast("NDArray[np.uint8]", cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    return arrange(list(reading.lines), rgb, angle=reading.angle, insets=reading.turned, words=reading.lines)
