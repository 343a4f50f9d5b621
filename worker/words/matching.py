"""Match the words of a model's text with those that were seen on the page image, character by character.

Both texts are nearly the same, but for letters read wrongly on either side, lines that one of them lacks, lines that stand
twice, and parts that stand in another order. So pieces of six characters that both have once are taken for anchors, the
longest chain of them that is in order in both is kept (as in patience diff), and between anchors the least edit distance
aligns what is left. Where both agree, that stands; the rest is aligned again: each round finds the longest part that both have
in one order. What is then left of the model's text is looked for everywhere: a line that the model wrote twice has one place.
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

#: Rounds in which what is left is aligned anew: a part in another order takes one.
_ROUNDS = 8
#: Characters of an anchor.
_ANCHOR = 6
#: Share of the characters, among so many before, behind or around one, that agree where both texts are the same. Texts that
#: have nothing to do with each other agree in 0.2 to 0.35; black letter, read badly, in 0.6.
_AGREE, _AMONG = 0.5, 16
#: The same among the nearest, so many on each side: where the texts begin to differ, those before still agree.
_AGREE_NEAR, _NEAR = 0.4, 3
#: Nobody is helped by an alignment of more characters: no page has as many.
_MOST = 60_000

#: Pieces of what is left, in characters, and how similar, of 100, a piece that was seen has to be. Of random pieces of 8 to 60
#: letters, the most similar in a page of text has 35 to 60.
_SHORTEST_PIECE, _LONGEST_PIECE, _SIMILAR = 8, 60, 70.0

_NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Stream:
    """The characters of words, without what differs from one reader to the other: case, width, long s, spaces."""

    text: str
    #: the index of the word of each character
    word: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Matches:
    """For each character of the model's text, the one that was seen in its place; -1 where there is none."""

    place: NDArray[np.intp]
    #: whether both are the same character
    equal: NDArray[np.bool_]


def stream(words: Sequence[str]) -> Stream:
    """Return the characters of words."""
    texts = [_folded(word) for word in words]
    owner = np.repeat(np.arange(len(words)), [len(text) for text in texts])
    return Stream("".join(texts)[:_MOST], owner[:_MOST])


def match(given: Stream, seen: Stream) -> Matches:
    """Match the characters of a model's text with those that were seen."""
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
    """Yield what follows each other, in pieces that are long enough to be looked for and short enough for a fast search."""
    for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
        pieces = np.array_split(run, max(-(-len(run) // _LONGEST_PIECE), 1))
        yield from (piece for piece in pieces if len(piece) >= _SHORTEST_PIECE)


def _look_everywhere(given: Stream, seen: Stream, matches: Matches, run: NDArray[np.intp]) -> None:
    """Match a piece of the model's text with the most similar piece that was seen, where it is similar enough."""
    text = "".join(given.text[i] for i in run)
    best = fuzz.partial_ratio_alignment(text, seen.text, score_cutoff=_SIMILAR)
    if best is None or not best.dest_end > best.dest_start:
        return
    begin, end = best.dest_start, best.dest_end
    place, equal = _aligned(text, seen.text[begin:end])
    kept = place != _NOWHERE
    matches.place[run[kept]] = begin + place[kept]
    matches.equal[run[kept]] = equal[kept]


def _align(given: Stream, seen: Stream, matches: Matches, there: NDArray[np.intp]) -> bool:
    """Align what is not matched of the model's text with these characters; keep what agrees. Say whether anything did."""
    left = _unmatched(given, matches)
    if not len(left) or not len(there):
        return False
    place, equal = _aligned("".join(given.text[i] for i in left), "".join(seen.text[i] for i in there))
    equal_there = np.zeros(len(there), np.bool_)
    equal_there[place[equal]] = True
    kept = (place != _NOWHERE) & _agrees(equal) & _agrees(equal_there)[place]
    matches.place[left[kept]] = there[place[kept]]
    matches.equal[left[kept]] = equal[kept]
    return bool(kept.any())


def _agrees(equal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say for each character whether its neighbours agree: the nearest, and those before, behind or around it."""
    sums = np.concatenate(([0], np.cumsum(equal)))
    places = np.arange(len(equal))

    def share(before: int, behind: int) -> NDArray[np.float64]:
        first, last = np.maximum(places - before, 0), np.minimum(places + behind + 1, len(equal))
        return np.asarray((sums[last] - sums[first]) / np.maximum(last - first, min(_AMONG // 2, len(equal))))

    half = _AMONG // 2
    far = np.maximum(share(half, half), np.maximum(share(_AMONG, 0), share(0, _AMONG)))
    return (far >= _AGREE) & (share(_NEAR, _NEAR) >= _AGREE_NEAR)


def _unmatched(given: Stream, matches: Matches) -> NDArray[np.intp]:
    """Return the characters of the words of which less than half is matched."""
    if not len(given.text):
        return np.empty(0, np.intp)
    matched = np.bincount(given.word, weights=matches.place != _NOWHERE)
    lengths = np.bincount(given.word)
    return np.flatnonzero((2 * matched < lengths)[given.word] & (matches.place == _NOWHERE))


def _aligned(given: str, seen: str) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return for each character the one in its place, and whether it is the same."""
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
    """Return the longest chain of anchors: where pieces that both texts have once stand in both, in rising order."""
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
    """Return the pieces that stand once in a text, with their places, in their order."""
    found: dict[str, int] = {}
    for place in range(len(text) - _ANCHOR + 1):
        piece = text[place : place + _ANCHOR]
        found[piece] = -1 if piece in found else place
    return {piece: place for piece, place in found.items() if place >= 0}


def _folded(word: str) -> str:
    folded = unicodedata.normalize("NFKC", word.replace("\N{LATIN SMALL LETTER LONG S}", "s")).casefold()
    return "".join(filter(str.isalnum, folded))
