"""Confidence: the chance that a page's character error rate is under 5 %, by what speaks for its text and against it.

The evidence is what the engine says of its lines or tokens, what the text looks like, what ink lies outside of it, and what a
second engine read, where one did. A logistic regression weighs it, whose coefficients are in confidence.json: they were fitted to
pages with a known text by `python -m bench.confidence --write`, which also shows how far they can be trusted.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.pages import Region
from worker.imaging.marks import find_marks
from worker.imaging.unread_ink import unread
from worker.text_layer import vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ocrfleet.records.pages import Block, Line
    from worker.engines.base import Recognition
    from worker.imaging.page_image import PageImage
    from worker.parsers import Parsed

    Box = tuple[float, float, float, float]

#: Of a page whose text is its PDF's own, and trusted: bench/text_layers.py accepts none that is wrong, of some hundred.
TEXT_LAYER = 0.98
#: Share of a text's letters whose lines are the least sure ones.
_LOW = 0.1
#: A text has so many common words before one is seen, of which this share is misspelt: of a few words not much follows.
_WORDS_BEFORE, _MISSPELT_BEFORE = 10, 0.2
#: Logarithms of chances are cut off here: nothing is surer than 1 in 1,000.
_SUREST = 7.0
#: A page of which this share is unread is as wrong as one of which more is.
_MOST_UNREAD = 0.25
#: Letters of a region, at least: a single sign's confidence says little.
_FEWEST_LETTERS = 4
#: Characters of the pieces of text that two readings are compared by.
_PIECE = 6

_WORD = re.compile(r"[^\W_]+")
_NO_LETTERS = re.compile(r"[\W_]+")
_MIXED = re.compile(r"[^\W\d_]\d|\d[^\W\d_]|[a-zß-ÿ][A-ZÀ-Þ]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What speaks for a page's text and against it. Shares and scores are 0..1."""

    #: mean score of lines or tokens, by their letters; None where the engine gives none
    score: float | None
    #: score that all but the least sure tenth of the letters have
    low_score: float | None
    #: share of the common words of its language that have a letter wrong
    misspelt: float
    #: share of words that mix letters with digits, or capitals with small letters
    mixed: float
    #: share of the marks in rows, as those of print, that lie outside of what was read
    unread: float

    def features(self, agreement: float | None = None) -> dict[str, float]:
        """Return the values that coefficients are for. `agreement` is that of a second engine, 0..1."""
        score, low = self.score or 0.0, self.low_score or 0.0
        return {
            "score": _log_odds(score),
            "low_score": _log_odds(low),
            "misspelt": self.misspelt,
            "mixed": min(self.mixed, 0.3),
            "unread": min(self.unread, _MOST_UNREAD),
            "agreement": agreement or 0.0,
        }


def gather(parsed: Parsed, recognition: Recognition, image: PageImage) -> Evidence:
    """Return the evidence on a page's text. Takes 20 ms for an image of 2500 pixels."""
    scores, weights = _scores(recognition)
    words = vocabulary.words_in([parsed.text])
    known, misspelt = (vocabulary.common_words(words), vocabulary.misspelt(words)) if words else (0, 0.0)
    all_words = _WORD.findall(parsed.text)
    letters = _letters(parsed.text)
    return Evidence(
        score=float(np.average(scores, weights=weights)) if len(scores) else None,
        low_score=_quantile(scores, weights, _LOW) if len(scores) else None,
        # A page without a text has nothing misspelt.
        misspelt=(misspelt * known + _MISSPELT_BEFORE * _WORDS_BEFORE) / (known + _WORDS_BEFORE) if letters else 0.0,
        mixed=sum(_MIXED.search(word) is not None for word in all_words) / max(len(all_words), 1),
        unread=_unread(recognition.lines, parsed.blocks, letters, image),
    )


def chance(evidence: Evidence, engine: str, agreement: float | None = None) -> float:
    """Return the chance, 0..1, that less than 5 % of a text's characters are wrong.

    `engine` is a profile's. One without coefficients of its own has RapidOCR's, whose scores are probabilities of characters as
    those of models that write are of tokens; without scores it has coefficients that leave them out. `agreement` is that of a
    second engine, see `agreement_of`.
    """
    kind = "any" if evidence.score is None else engine if engine in _calibration() else RAPIDOCR.engine
    weights = _calibration()[kind if agreement is None else f"{kind}+audit"]
    features = evidence.features(agreement) | {"constant": 1.0}
    total = sum(weight * features[name] for name, weight in weights.items())
    return round(1 / (1 + math.exp(-min(max(total, -_SUREST), _SUREST))), 4)


def agreement_of(text: str, other: str) -> float:
    """Return the share of a text's pieces, of six characters each, that another reading of the page has as well, 0..1.

    The order of the lines does not matter, nor do capitals and punctuation. 1 where the text has no letters.
    """
    ours, theirs = _pieces(text), _pieces(other)
    return (ours & theirs).total() / ours.total() if ours else 1.0


def worst_region(parsed: Parsed, recognition: Recognition) -> Region | None:
    """Return the block whose lines or tokens have the least mean score, or the line where there are no blocks; None without.

    A text of fewer than four letters and digits is not looked at.
    """
    rated: list[tuple[float, Box]] = []
    for block in parsed.blocks:
        within = _scores_of(block, recognition) if block.boxes and _letters(block.markdown) >= _FEWEST_LETTERS else []
        if within:
            scores, weights = zip(*within, strict=True)
            rated.append((float(np.average(scores, weights=weights)), _around(block.boxes)))
    if not rated:
        rated = [
            (line.confidence, line.box)
            for line in recognition.lines
            if line.confidence is not None and _letters(line.text) >= _FEWEST_LETTERS
        ]
    if not rated:
        return None
    confidence, box = min(rated)
    return Region(box=box, confidence=round(confidence, 4))


def _scores_of(block: Block, recognition: Recognition) -> list[tuple[float, int]]:
    """Return the scores of a block's lines, or of the pieces of its text, with the letters or tokens of each."""
    if not recognition.scores:
        return [
            (line.confidence, max(_letters(line.text), 1))
            for line in recognition.lines
            if line.confidence is not None and _within(line, block)
        ]
    begin = recognition.text.find(block.markdown)
    end = begin + len(block.markdown)
    found, at = [], 0
    for score in recognition.scores:
        if begin >= 0 and at < end and at + score.characters > begin:
            found.append((score.probability, score.tokens))
        at += score.characters
    return found


def _scores(recognition: Recognition) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of what was read, and how much each weighs: the letters of a line, the tokens of a piece."""
    if recognition.scores:
        return np.array([score.probability for score in recognition.scores]), np.array(
            [float(score.tokens) for score in recognition.scores]
        )
    lines = [line for line in recognition.lines if line.confidence is not None]
    return np.array([line.confidence or 0.0 for line in lines]), np.array(
        [max(_letters(line.text), 1.0) for line in lines]
    )


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


def _quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.searchsorted(np.cumsum(weights[order]), share * weights.sum())
    return float(values[order][min(int(reached), len(values) - 1)])


def _log_odds(share: float) -> float:
    share = min(max(share, 0.001), 0.999)
    return math.log(share / (1 - share))


def _unread(lines: Sequence[Line], blocks: Iterable[Block], letters: int, image: PageImage) -> float:
    """Return the share of the marks in rows that lie outside of what was read, or for which no letter was written."""
    marks = find_marks(cast("NDArray[np.uint8]", cv2.cvtColor(image.pixels, cv2.COLOR_RGB2GRAY)))
    in_rows = int(marks.beside.sum())
    if not in_rows:
        return 0.0
    boxes = [line.box for line in lines] or [box for block in blocks for box in block.boxes]
    outside = int(unread(marks, _quads(boxes)).beside.sum()) if boxes else 0
    return max(outside, in_rows - letters, 0) / in_rows


def _quads(boxes: Sequence[Box]) -> NDArray[np.float64]:
    return np.array([((x0, y0), (x1, y0), (x1, y1), (x0, y1)) for x0, y0, x1, y1 in boxes], np.float64)


def _within(line: Line, block: Block) -> bool:
    """Say whether the centre of a line lies in a block."""
    x, y = (line.box[0] + line.box[2]) / 2, (line.box[1] + line.box[3]) / 2
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in block.boxes)


def _around(boxes: Sequence[Box]) -> Box:
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _pieces(text: str) -> Counter[str]:
    plain = _NO_LETTERS.sub(" ", text.casefold()).strip()
    return Counter(plain[start : start + _PIECE] for start in range(max(len(plain) - _PIECE + 1, bool(plain))))


@functools.cache
def _calibration() -> dict[str, dict[str, float]]:
    """Return the coefficients by engine; `+audit` with a second engine, `any` without the engine's scores."""
    data = importlib.resources.files("worker.pipeline").joinpath("confidence.json").read_text(encoding="utf-8")
    return cast("dict[str, dict[str, float]]", json.loads(data)["coefficients"])
