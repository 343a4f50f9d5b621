"""Choose between signs that look alike (0 O o, 1 I l |, V v) by the other signs of a word, where the recogniser was in doubt.

Numbers have no letters before a figure ("18O0"; a letter behind the last one may be a unit: "50l"), Roman numerals neither small
letters nor figures ("XIl", "V|"), and a capital I seldom follows the capital that begins a word of small letters ("PIate").
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.engines.line_words import Letter

#: A sign with less confidence may be another that looks like it.
_DOUBTFUL = 0.95
#: The fewest figures of a number in which a letter is a figure: 1o and 2o are ordinals.
_FIGURES = 2
_AS_FIGURE = {"o": "0", "O": "0", "l": "1", "I": "1"}
_AS_NUMERAL = {"l": "I", "1": "I", "|": "I", "v": "V", "x": "X", "c": "C"}
#: The fewest sure letters of a numeral in which a letter or a figure is another: V1 and Mc are labels and names.
_LETTERS = 2
#: The fewest letters of a word in which an I is a small l: GIs has three.
_LONG = 4
_NUMBER = re.compile(r"[0-9]+([.,][0-9]+)*")
_NUMERAL = re.compile(r"(?=[IVXLCDM])M{0,3}(CM|CD|D?C{0,4})(XC|XL|L?X{0,4})(IX|IV|V?I{0,4})")
_SMALL = re.compile(r"[^\W\d_][^\W\dA-Z_]+")


def consistent(read: Sequence[Letter]) -> list[Letter]:
    """Return a line's letters, with doubtful signs replaced by similar ones where only these fit the word."""
    found: list[Letter] = []
    for space, letters in itertools.groupby(read, lambda letter: letter.text.isspace()):
        part = list(letters)
        found += part if space else _word(part)
    return found


def _word(word: list[Letter]) -> list[Letter]:
    begin, end = 0, len(word)
    while begin < end and not _is_sign(word[begin]):
        begin += 1
    while end > begin and not _is_sign(word[end - 1]):
        end -= 1
    signs = word[begin:end]
    sure = sum(sign.text in "IVXLCDM" and sign.confidence >= _DOUBTFUL for sign in signs)
    strokes_only = all(sign.text == "|" for sign in signs if sign.text not in "IVXLCDM")
    for other, fits in (
        (_figures(signs), _NUMBER if sum(sign.text.isdigit() for sign in signs) >= _FIGURES else None),
        (
            _with(signs, _AS_NUMERAL),
            _NUMERAL if sure >= (1 if strokes_only else _LETTERS) and any(map(_is_sure_numeral, signs)) else None,
        ),
        ([*signs[:1], *_with(signs[1:2], {"I": "l"}), *signs[2:]], _SMALL if len(signs) >= _LONG else None),
    ):
        if other != signs and fits and fits.fullmatch("".join(sign.text for sign in other)):
            return [*word[:begin], *other, *word[end:]]
    return word


def _figures(signs: Sequence[Letter]) -> list[Letter]:
    """Return the signs, of which doubtful letters before the last figure are figures."""
    last = max((number for number, sign in enumerate(signs) if sign.text.isdigit()), default=0)
    return [*_with(signs[:last], _AS_FIGURE), *signs[last:]]


def _with(signs: Sequence[Letter], similar: Mapping[str, str]) -> list[Letter]:
    return [
        sign._replace(text=similar.get(sign.text, sign.text)) if sign.confidence < _DOUBTFUL else sign for sign in signs
    ]


def _is_sign(letter: Letter) -> bool:
    return letter.text.isalnum() or letter.text == "|"


def _is_sure_numeral(sign: Letter) -> bool:
    return sign.text in {"V", "X", "L", "C", "D", "M"} and sign.confidence >= _DOUBTFUL
