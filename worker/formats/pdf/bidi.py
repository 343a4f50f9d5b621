"""Visual order of characters: text in a PDF is stored from left to right as displayed; viewers restore the reading order."""

from __future__ import annotations

import unicodedata
from itertools import groupby

_RIGHT_TO_LEFT = frozenset({"R", "AL"})
#: Bidirectional classes of left-to-right letters, and of European and Arabic numbers with their separators.
_LEFT_TO_RIGHT = frozenset({"L", "EN", "AN"})
_WITHIN_NUMBERS = frozenset({"CS", "ES", "ET"})


def is_right_to_left(text: str) -> bool:
    """Return whether a text has letters of a right-to-left script."""
    return any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text)


def as_seen(word: str) -> str:
    """Return the characters of a word in visual order, from left to right. `word` has no spaces.

    Applies the Unicode bidirectional algorithm (UAX #9) to a single word: reverses right-to-left runs, but not left-to-right
    letters and numbers within them.
    """
    if not is_right_to_left(word):
        return word
    runs = [
        ("".join(character for character, _ in run), forward)
        for forward, run in groupby(_forward(word), key=lambda pair: pair[1])
    ]
    return "".join(run if forward else run[::-1] for run, forward in reversed(runs))


def _forward(word: str) -> list[tuple[str, bool]]:
    """Return each character and whether it is read from left to right; combining marks stay with their letter."""
    kinds = [unicodedata.bidirectional(character) for character in word]
    forward = [kind in _LEFT_TO_RIGHT for kind in kinds]
    for at, kind in enumerate(kinds):
        if kind == "NSM" and at:
            forward[at] = forward[at - 1]
        elif kind in _WITHIN_NUMBERS:
            # A separator within a number is part of it.
            forward[at] = 0 < at < len(word) - 1 and forward[at - 1] and kinds[at + 1] in _LEFT_TO_RIGHT
    return list(zip(word, forward, strict=True))
