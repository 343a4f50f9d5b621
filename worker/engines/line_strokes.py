"""Count the upright strokes of a line's ink where a recogniser is bad at counting: in Roman numerals (II, III).

The recogniser has single characters for some numerals (U+2160 and further) and often adds a stroke to them, or loses one.
"""

from __future__ import annotations

import itertools
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

from worker.engines.line_words import Letter, ink, inked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: A character with less confidence may have another number of strokes than were read.
_DOUBTFUL = 0.95
#: A stroke's columns have this share of the highest one's ink; the widest of some is at most so many times as wide as the narrowest.
_HIGH, _ALIKE = 0.5, 2.0
#: The most strokes of two numerals.
_MOST = 8


def counted(read: Sequence[Letter], crop: NDArray[np.uint8]) -> list[Letter]:
    """Return a line's letters, with numerals of upright strokes as the ink shows them; `crop` is the line's image, BGR."""
    if not any(map(_is_doubtful, read)):
        return list(read)
    dark = ink(crop)
    found: list[Letter] = []
    for is_strokes, group in itertools.groupby(enumerate(read), lambda item: _is_strokes(item[1])):
        part = list(group)
        letters = [letter for _, letter in part]
        first, last = part[0][0], part[-1][0]
        if is_strokes and any(map(_is_doubtful, letters)) and (_is_word(read, first, last) or _has_compound(letters)):
            letters = _numeral(
                letters, dark, _near(letters, dark, _strokes(dark, *_between(read, first, last, inked(dark))))
            )
        found += letters
    return found


def _is_strokes(letter: Letter) -> bool:
    plain = _plain(letter)
    return set(plain) == {"I"} or (plain in {"1", "|"} and letter.confidence < _DOUBTFUL)


def _is_doubtful(letter: Letter) -> bool:
    plain = _plain(letter)
    return set(plain) == {"I"} and (letter.confidence < _DOUBTFUL or len(plain) > 1)


def _is_word(read: Sequence[Letter], first: int, last: int) -> bool:
    """Say whether spaces or the line's ends are around some letters. Within a word the places of narrow letters are inexact."""
    return not any(letter.text.strip() for letter in (*read[max(first - 1, 0) : first], *read[last + 1 : last + 2]))


def _has_compound(letters: Sequence[Letter]) -> bool:
    return any(len(_plain(letter)) > 1 for letter in letters)


def _plain(letter: Letter) -> str:
    return unicodedata.normalize("NFKC", letter.text)


def _between(read: Sequence[Letter], first: int, last: int, columns: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the columns from the paper behind the letter before `first` to the paper before the letter behind `last`."""
    before = [letter.place for letter in read[:first] if letter.place is not None]
    behind = [letter.place for letter in read[last + 1 :] if letter.place is not None]
    paper = np.flatnonzero(~columns)
    begin, end = 0, len(columns)
    if before:
        begin = int(next(iter(paper[paper >= before[-1] * end]), end))
    if behind:
        end = int(next(iter(paper[paper <= behind[0] * end][::-1]), 0))
    return begin, end


def _strokes(dark: NDArray[np.bool_], first: int, last: int) -> NDArray[np.intp]:
    """Return where upright strokes begin and end between two columns, shape (n, 2); none if there is other ink."""
    high = dark[:, first:last].sum(axis=0)
    upright = high >= _HIGH * high.max(initial=1)
    found: NDArray[np.intp] = np.flatnonzero(np.diff(np.concatenate(([False], upright, [False])).astype(np.int8)))
    found = found.reshape(-1, 2) + first
    widths = found[:, 1] - found[:, 0]
    alike = 0 < len(found) <= _MOST and widths.max() <= _ALIKE * widths.min() and widths.max() < dark.shape[0] / 2
    return found if alike else found[:0]


def _near(letters: Sequence[Letter], dark: NDArray[np.bool_], strokes: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the strokes that are no farther from the letters than half the line's height: others are rules, or a neighbour's."""
    height, width = dark.shape
    places = [letter.place * width for letter in letters if letter.place is not None]
    if not places:
        return strokes
    middles = strokes.mean(axis=1)
    near: NDArray[np.intp] = strokes[(middles > min(places) - height / 2) & (middles < max(places) + height / 2)]
    return near


def _numeral(letters: list[Letter], dark: NDArray[np.bool_], strokes: NDArray[np.intp]) -> list[Letter]:
    if not len(strokes):
        return letters
    confidence = min(letter.confidence for letter in letters)
    return [Letter("I", float(middle) / dark.shape[1], confidence) for middle in strokes.mean(axis=1)]
