"""Match the words of a model's text with the words recognised on the page image, character by character.

The texts differ in misread letters on both sides, missing lines, repeated lines, and the order of parts. The algorithm:

1. Pieces of six characters that occur exactly once in both texts are anchors. The longest chain of anchors in the same order in
   both texts is kept, as in patience diff. Between anchors, the text is aligned with the least edit distance.
2. Matches with agreeing neighbours are kept. The rest is aligned again: each round finds the longest part in the same order.
3. Remaining pieces of the model's text are searched in the whole recognised text: a line that the model wrote twice has one place.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Maximum number of alignment rounds: each part in another order takes one.
_ROUNDS = 8
#: Length of an anchor in characters.
_ANCHOR = 6
#: Minimum share of agreeing characters in a window before, behind or around a character. Unrelated texts agree in 0.2 to 0.35;
#: poorly recognised black letter agrees in 0.6.
_AGREE, _AMONG = 0.5, 16
#: The same in a small window on both sides: at a position where the texts begin to differ, the characters before still agree.
_AGREE_NEAR, _NEAR = 0.4, 3
#: Minimum number of different characters around a match. Words of any language have more; columns of zeros match anywhere.
_DISTINCT = 4
#: Maximum length of an alignment: no page has more characters.
_MOST = 60_000

#: Lengths of the pieces to search, and the minimum similarity (0 to 100) of a match. For random pieces of 8 to 60 letters, the
#: most similar piece of a page has 35 to 60.
_SHORTEST_PIECE, _LONGEST_PIECE, _SIMILAR = 8, 60, 70.0

_NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Stream:
    """The characters of words, normalised: without differences in case, width, long s, and spaces."""

    text: str
    #: the index of the word of each character
    word: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Matches:
    """For each character of the model's text, the index of the recognised character; -1 if there is none."""

    place: NDArray[np.intp]
    #: whether both are the same character
    equal: NDArray[np.bool_]


def stream(words: Sequence[str]) -> Stream:
    """Return the normalised characters of words."""
    texts = [_folded(word) for word in words]
    owner = np.repeat(np.arange(len(words)), [len(text) for text in texts])
    return Stream("".join(texts)[:_MOST], owner[:_MOST])


def match(given: Stream, seen: Stream) -> Matches:
    """Match the characters of a model's text with the recognised characters."""
    matches = Matches(np.full(len(given.text), _NOWHERE), np.zeros(len(given.text), np.bool_))
    there = np.arange(len(seen.text))
    for _ in range(_ROUNDS):
        if not _align(given, seen, matches, there):
            break
        taken = seen.word[matches.place[matches.place != _NOWHERE]]
        there = np.flatnonzero(~np.isin(seen.word, taken))
    for run in _runs(_unmatched(given, matches)):
        _look_everywhere(given, seen, matches, run)
    return matches


def _runs(places: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Yield runs of consecutive characters, in pieces of a length that can be searched fast and reliably."""
    for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
        pieces = np.array_split(run, max(-(-len(run) // _LONGEST_PIECE), 1))
        yield from (piece for piece in pieces if len(piece) >= _SHORTEST_PIECE)


def _look_everywhere(given: Stream, seen: Stream, matches: Matches, run: NDArray[np.intp]) -> None:
    """Match a piece of the model's text with the most similar recognised piece, if it is similar enough."""
    text = "".join(given.text[i] for i in run)
    if 2 * sum(map(str.isalpha, text)) < len(text):
        return  # rows of numbers are similar to others
    best = fuzz.partial_ratio_alignment(text, seen.text, score_cutoff=_SIMILAR)
    if best is None or not best.dest_end > best.dest_start:
        return
    begin, end = best.dest_start, best.dest_end
    place, equal = _aligned(text, seen.text[begin:end])
    kept = place != _NOWHERE
    matches.place[run[kept]] = begin + place[kept]
    matches.equal[run[kept]] = equal[kept]


def _align(given: Stream, seen: Stream, matches: Matches, there: NDArray[np.intp]) -> bool:
    """Align the unmatched characters of the model's text with these characters; keep matches that agree. Return whether any did."""
    left = _unmatched(given, matches)
    if not len(left) or not len(there):
        return False
    text = "".join(given.text[i] for i in left)
    place, equal = _aligned(text, "".join(seen.text[i] for i in there))
    equal_there = np.zeros(len(there), np.bool_)
    equal_there[place[equal]] = True
    kept = (place != _NOWHERE) & _agrees(equal) & _agrees(equal_there)[place] & _tells(text)
    matches.place[left[kept]] = there[place[kept]]
    matches.equal[left[kept]] = equal[kept]
    return bool(kept.any())


def _agrees(equal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each character whether its neighbours agree: the nearest ones, and those before, behind or around it."""
    sums = np.concatenate(([0], np.cumsum(equal)))
    places = np.arange(len(equal))

    def share(before: int, behind: int) -> NDArray[np.float64]:
        first, last = np.maximum(places - before, 0), np.minimum(places + behind + 1, len(equal))
        return np.asarray((sums[last] - sums[first]) / np.maximum(last - first, min(_AMONG // 2, len(equal))))

    half = _AMONG // 2
    far = np.maximum(share(half, half), np.maximum(share(_AMONG, 0), share(0, _AMONG)))
    return (far >= _AGREE) & (share(_NEAR, _NEAR) >= _AGREE_NEAR)


def _tells(text: str) -> NDArray[np.bool_]:
    """Return for each character whether the text around it differs from what is everywhere, as the zeros of a table are."""
    codes = np.pad(np.array([ord(character) for character in text], np.int64), _AMONG // 2, mode="edge")
    around = np.sort(np.lib.stride_tricks.sliding_window_view(codes, 2 * (_AMONG // 2) + 1), axis=1)
    return np.asarray((np.diff(around, axis=1) != 0).sum(axis=1) + 1 >= _DISTINCT)


def _unmatched(given: Stream, matches: Matches) -> NDArray[np.intp]:
    """Return the characters of words that are matched by less than half."""
    if not len(given.text):
        return np.empty(0, np.intp)
    matched = np.bincount(given.word, weights=matches.place != _NOWHERE)
    lengths = np.bincount(given.word)
    return np.flatnonzero((2 * matched < lengths)[given.word] & (matches.place == _NOWHERE))


def _aligned(given: str, seen: str) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return for each character the index of the aligned character, and whether both are equal."""
    place = np.full(len(given), _NOWHERE)
    equal = np.zeros(len(given), np.bool_)
    here = there = 0
    for anchor, other in [*_chain(given, seen), (len(given), len(seen))]:
        for operation in Levenshtein.opcodes(given[here:anchor], seen[there:other]):
            if operation.tag in {"equal", "replace"}:
                first, last = here + operation.src_start, here + operation.src_end
                place[first:last] = np.arange(there + operation.dest_start, there + operation.dest_end)
                equal[first:last] = operation.tag == "equal"
        here, there = anchor, other
    return place, equal


def _chain(given: str, seen: str) -> list[tuple[int, int]]:
    """Return the longest chain of anchors: positions in both texts of pieces that occur once in each, in ascending order."""
    places = _once(seen)
    pairs = [(here, places[piece]) for piece, here in _once(given).items() if piece in places]
    # The longest rising subsequence, by patience sorting.
    ends: list[int] = []
    tops: list[int] = []
    before: list[int] = []
    for number, (_, there) in enumerate(pairs):
        pile = bisect_left(ends, there)
        before.append(tops[pile - 1] if pile else -1)
        if pile == len(ends):
            ends.append(there)
            tops.append(number)
        else:
            ends[pile], tops[pile] = there, number
    chain = []
    number = tops[-1] if tops else -1
    while number >= 0:
        chain.append(pairs[number])
        number = before[number]
    return chain[::-1]


def _once(text: str) -> dict[str, int]:
    """Return the pieces that occur once in a text, with their positions, in order."""
    found: dict[str, int] = {}
    for place in range(len(text) - _ANCHOR + 1):
        piece = text[place : place + _ANCHOR]
        found[piece] = -1 if piece in found else place
    return {piece: place for piece, place in found.items() if place >= 0}


def _folded(word: str) -> str:
    folded = unicodedata.normalize("NFKC", word.replace("\N{LATIN SMALL LETTER LONG S}", "s")).casefold()
    return "".join(filter(str.isalnum, folded))
