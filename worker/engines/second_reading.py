"""Read doubtful lines again in a narrower image, and choose between the two readings of a line.

At other widths the columns that the recogniser reads begin at other places of a letter. Of 1200 drawn lines of print and
typewriting, mostly numbers and Roman numerals, this corrects 11 and spoils one; a wider image, or different margins, spoil more.
"""

from __future__ import annotations

import difflib
import itertools
import math
import unicodedata
from typing import TYPE_CHECKING

import cv2
import numpy as np

from worker.engines import line_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from worker.engines.line_words import Letter

#: A line is doubtful if one of its characters has less confidence.
_DOUBTFUL = 0.75
#: Readings that differ in more characters are of something illegible: neither is better.
_MOST_DIFFERING = 2
#: The width of the image for the second reading, as a share of the first's.
_WIDTH = 0.8
#: The total length of the lines of a page that are read again, in line heights: 1 % of a full page's time.
_BUDGET = 40.0


def doubtful(lines: Sequence[Sequence[Letter]], crops: Sequence[NDArray[np.uint8]]) -> Iterator[int]:
    """Yield the indices of the lines that are read again: the shortest doubtful ones, up to the limit."""
    left = _BUDGET
    lengths = [crop.shape[1] / max(crop.shape[0], 1) for crop in crops]
    for number in sorted(range(len(lines)), key=lambda number: lengths[number]):
        if not _is_doubtful(lines[number]):
            continue
        left -= lengths[number]
        if left < 0:
            return
        yield number


def narrowed(crop: NDArray[np.uint8], share: float = _WIDTH) -> NDArray[np.uint8]:
    """Return the image of a line with this share of its width."""
    size = max(round(crop.shape[1] * share), 1), crop.shape[0]
    return cv2.resize(crop, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def chosen(first: list[Letter], second: list[Letter], crop: NDArray[np.uint8]) -> list[Letter]:
    """Return the reading of a line with the higher confidence, if it fits the number of strokes in the ink as well as the other."""
    plain, other = _plain(first), _plain(second)
    if not 0 < _differing(plain, other) <= _MOST_DIFFERING or _confidence(second) <= _confidence(first):
        return first
    strokes = line_words.strokes(crop)
    return first if abs(len(other) - strokes) > abs(len(plain) - strokes) else second


def _is_doubtful(read: Sequence[Letter]) -> bool:
    """Say whether a sign of a number, a numeral or another word with hardly any small letters is doubtful."""
    for space, word in itertools.groupby(read, lambda letter: letter.text.isspace()):
        signs = [] if space else [sign for sign in word if sign.text.isalnum() or sign.text == "|"]
        small = sum(sign.text.islower() for sign in signs)
        if 2 * small <= len(signs) and any(sign.confidence < _DOUBTFUL for sign in signs):
            return True
    return False


def _differing(first: str, second: str) -> int:
    """Return how many characters differ between two readings."""
    same = sum(
        block.size for block in difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    )
    return max(len(first), len(second)) - same


def _plain(read: Sequence[Letter]) -> str:
    text = "".join(letter.text for letter in read if not letter.text.isspace())
    return unicodedata.normalize("NFKC", text)


def _confidence(read: Sequence[Letter]) -> float:
    """Return the geometric mean of the characters' confidences, 0..1."""
    logs = [math.log(max(letter.confidence, 1e-3)) for letter in read]
    return math.exp(sum(logs) / len(logs)) if logs else 0.0
