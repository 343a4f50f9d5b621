"""Restore spaces that a recogniser dropped, by the gaps in a line's ink.

The recogniser drops spaces between narrow letters and after numbers ("115II", "XLILXXXVII"). A gap is a space if it is much wider
than all other gaps in the line's words. Two upright strokes (II, HI) stand farther apart than other letters, above all in typewriter
fonts: their gaps are compared only with those of such pairs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from worker.engines.line_words import Letter, gaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Measured on 760 drawn lines in 20 fonts, 7 to 48 points: of a line's gaps, in 1.6 % the narrowest space is no wider than the
# widest other gap. Lengths are in heights of the line's image.

#: A space is at least this wide, this many times as wide as the widest gap within a word, and this share of the spaces that were read.
_NARROWEST, _WIDER, _LIKE_OTHERS = 0.17, 1.6, 0.75
#: Narrower gaps within words count as this wide.
_TIGHT = 0.05
#: The fewest gaps that are compared.
_FEWEST = 4
#: The same where a figure is beside a letter: there most gaps are spaces.
_LIKE_OTHERS_MIXED, _FEWEST_MIXED = 0.65, 3
#: Letters that end, and that begin, with an upright stroke.
_ENDS_UPRIGHT, _BEGINS_UPRIGHT = frozenset("IlHNMi1|dJj"), frozenset("IlHNMi1|BDEFKLPRhbkrnmp")
#: The first letter of scripts without spaces, and of those with other letters.
_BEYOND_LATIN = 0x2E80


class _Gap(NamedTuple):
    left: int
    right: int
    width: float
    #: the recogniser read a space here
    read: bool
    #: between upright strokes
    upright: bool
    #: between Latin letters or figures
    latin: bool
    #: may be a space: not between small letters, or between figures, of which 1 stands far from its neighbours
    open: bool
    #: between a figure and a letter, which are seldom in one word
    mixed: bool
    #: between a 1 and a letter: a 1 stands far from its neighbours in codes (A101B), too
    beside_one: bool


def with_spaces(read: Sequence[Letter], crop: NDArray[np.uint8]) -> list[Letter]:
    """Return a line's letters with the spaces that its ink shows; `crop` is the line's image, BGR."""
    found = _gaps(read, crop)
    spaces = _dropped([gap for gap in found if not gap.read], [gap.width for gap in found if gap.read])
    for before, after in pairwise(found):
        # A letter's place is inexact: the gap may be that of the space beside it.
        spaces -= {before.left} if after.read and after.width < before.width else set()
        spaces -= {after.left} if before.read and before.width < after.width else set()
    letters: list[Letter] = []
    for number, letter in enumerate(read):
        letters += [letter, Letter(" ", None, letter.confidence)] if number in spaces else [letter]
    return letters


def _gaps(read: Sequence[Letter], crop: NDArray[np.uint8]) -> list[_Gap]:
    places = [(number, letter.text, letter.place) for number, letter in enumerate(read) if letter.place is not None]
    widths = gaps([place for _, _, place in places], crop)
    return [
        _Gap(
            left,
            right,
            width / crop.shape[0],
            read=right > left + 1,
            upright=first[-1] in _ENDS_UPRIGHT and second[0] in _BEGINS_UPRIGHT,
            latin=all(sign.isalnum() and ord(sign[0]) < _BEYOND_LATIN for sign in (first, second)),
            open=not (first + second).isdigit() and not (first.islower() and second.islower()),
            mixed=first.isdigit() != second.isdigit(),
            beside_one=first.isdigit() != second.isdigit() and "1" in first[-1] + second[0],
        )
        for ((left, first, _), (right, second, _)), width in zip(pairwise(places), widths, strict=True)
    ]


def _dropped(inner: Sequence[_Gap], spaces: Sequence[float]) -> set[int]:
    """Return after which letters a space was dropped. `inner` are the gaps within words."""
    inner = [gap for gap in inner if gap.latin]
    usual = float(np.median(spaces)) if spaces else 0.0
    found: set[int] = set()
    for chosen, compared, like_others, fewest in (
        ([gap for gap in inner if gap.upright], [gap for gap in inner if gap.upright], _LIKE_OTHERS, _FEWEST),
        ([gap for gap in inner if not gap.upright], inner, _LIKE_OTHERS, _FEWEST),
        ([gap for gap in inner if gap.mixed], inner, _LIKE_OTHERS_MIXED, _FEWEST_MIXED),
    ):
        widths = sorted((gap.width for gap in compared), reverse=True)
        needed = max(_NARROWEST, like_others * usual)
        # Where the widths, from the widest, fall steeply, the spaces end. Most gaps are none.
        for last, following in list(pairwise(widths))[: len(widths) // 2] if len(widths) >= fewest else ():
            if last >= needed and last >= _WIDER * max(following, _TIGHT):
                found |= {
                    gap.left
                    for gap in chosen
                    if gap.open and gap.width >= last and (not gap.beside_one or 0 < _LIKE_OTHERS * usual <= gap.width)
                }
    return found
