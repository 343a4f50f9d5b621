"""The order in which letters stand on paper: PDF viewers take text as it is seen, from left to right, and turn it themselves."""

from __future__ import annotations

import unicodedata
from itertools import groupby

_RIGHT_TO_LEFT = frozenset({"R", "AL"})
#: Letters of scripts from left to right, and numbers of both kinds of digits with what belongs to them.
_LEFT_TO_RIGHT = frozenset({"L", "EN", "AN"})
_WITHIN_NUMBERS = frozenset({"CS", "ES", "ET"})


def is_right_to_left(text: str) -> bool:
    """Tell whether a text has letters of a script that is written from right to left."""
    return any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text)


def as_seen(word: str) -> str:
    """Return a word's characters from left to right as they stand on paper. `word` has no spaces.

    The Unicode bidirectional algorithm (UAX #9) for a word by itself: what is written from right to left is turned, letters
    and numbers of the other direction within it are not.
    """
    if not is_right_to_left(word):
        return word
    runs = [
        ("".join(character for character, _ in run), forward)
        for forward, run in groupby(_forward(word), key=lambda pair: pair[1])
    ]
    return "".join(run if forward else run[::-1] for run, forward in reversed(runs))


def _forward(word: str) -> list[tuple[str, bool]]:
    """Return each character and whether it is read from left to right; marks go with the letter before them."""
    kinds = [unicodedata.bidirectional(character) for character in word]
    forward = [kind in _LEFT_TO_RIGHT for kind in kinds]
    for at, kind in enumerate(kinds):
        if kind == "NSM" and at:
            forward[at] = forward[at - 1]
        elif kind in _WITHIN_NUMBERS:
            # A separator within a number belongs to it.
            forward[at] = 0 < at < len(word) - 1 and forward[at - 1] and kinds[at + 1] in _LEFT_TO_RIGHT
    return list(zip(word, forward, strict=True))
