"""Assign each word of a model's text a box on the page image, and record how the box was found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ocrfleet.records.pages import Placed, Word
from worker.formats.page_layout import Box, around, is_right_to_left, shared
from worker.words.assignment import assign
from worker.words.matching import match, stream
from worker.words.rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from worker.words.matching import Stream

#: A gap in a line, or between two lines, can hold words if each character gets at least this width, in line heights.
_NARROWEST = 0.15
#: Two words are in one row if they overlap vertically by this share of the smaller height.
_LEVEL = 0.5
#: A box with more than one character is vertical if its height is this many times its width.
_TALL = 1.5
#: Minimum white space between two lines that can hold another line, in line heights.
_ROOM = 0.8
#: Recognised characters can replace unrecognised words if their number is within these factors of the words' characters.
_MOST, _LEAST = 2.5, 0.4
#: … and their pairs at most so many, which take a tenth of a second.
_MOST_PAIRS = 100_000


class ModelWord(NamedTuple):
    """A word as the model wrote it."""

    text: str
    #: index of its block; None if the page has no blocks
    block: int | None
    #: its line in the model's text; a paragraph may be one line
    row: int


@dataclass(frozen=True, slots=True)
class _Place:
    box: Box
    #: the recognised line; None if there is none
    line: int | None
    placed: Placed
    #: indexes of the first and the last recognised word there
    first: int = -1
    last: int = -1


def place(given: Sequence[ModelWord], seen: Sequence[Word], boxes: Sequence[Box | None], page: Box) -> tuple[Word, ...]:
    """Return the words of a model's text with their places.

    `seen` are the words of detector and recogniser, in reading order, with the numbers of their lines. `boxes` are the boxes of the
    model's blocks, if it returned any. `page` is the box of the page image. Every word is returned, in order.
    """
    places, seen = _in_best_order(given, seen)
    _between(places, given, seen)
    return tuple(_numbered(places, given, _blocks(places, given, boxes, page)))


def _in_best_order(given: Sequence[ModelWord], seen: Sequence[Word]) -> tuple[list[_Place | None], Sequence[Word]]:
    """Return the places of words that were recognised, and the words in the order in which most were.

    A detector has no order, and the one that was made for it may mix the rows of a dense table.
    """
    tries = [(_matched(given, order), order) for order in (seen, *_by_rows(seen))]
    return max(tries, key=lambda found: sum(place is not None for place in found[0]))


def _by_rows(seen: Sequence[Word]) -> Iterator[list[Word]]:
    """Yield the words row by row; of a page whose lines run down or up, in both directions."""
    length = {True: 0.0, False: 0.0}
    for x0, y0, x1, y1 in (word.box for word in seen if len(word.text) > 1):
        length[y1 - y0 > _TALL * (x1 - x0)] += max(x1 - x0, y1 - y0)
    boxes = [word.box for word in seen]
    if length[False] >= length[True]:
        turned = [boxes]
    else:
        turned = [[(y0, -x1, y1, -x0) for x0, y0, x1, y1 in boxes], [(-y1, x0, -y0, x1) for x0, y0, x1, y1 in boxes]]
    for one in turned:
        yield [seen[index] for row in rows_of(one) for index in row]


def _matched(given: Sequence[ModelWord], seen: Sequence[Word]) -> list[_Place | None]:
    """Return the places of words that were recognised."""
    wanted, there = stream([word.text for word in given]), stream([word.text for word in seen])
    places: list[_Place | None] = [None] * len(given)
    if not wanted.text or not there.text:
        return places
    line = np.array([word.line for word in seen])[there.word]
    found = match(wanted, there)
    taken = np.zeros(len(there.text), np.bool_)
    taken[found.place[found.place >= 0]] = True
    begins = np.searchsorted(there.word, np.arange(len(seen)))
    starts = np.searchsorted(wanted.word, np.arange(len(given) + 1))
    for number in range(len(given)):
        own = found.place[starts[number] : starts[number + 1]]
        length, own_equal = len(own), found.equal[starts[number] : starts[number + 1]]
        kept = own >= 0
        if 2 * int(kept.sum()) < length or not kept.any() or _is_repeated(given, number):
            continue
        most, _ = Counter(line[own[kept]].tolist()).most_common(1)[0]
        kept &= line[np.maximum(own, 0)] == most
        equal = int(own_equal[kept].sum())
        placed = Placed.DETECTED if 2 * equal >= int(kept.sum()) and equal else Placed.INTERPOLATED
        ends = np.flatnonzero(kept)
        first, last = _widened(
            int(own[kept].min()), int(own[kept].max()), int(ends[0]), length - 1 - int(ends[-1]), taken, there
        )
        places[number] = _of_characters(there, begins, seen, first, last, placed)
    return places


def _is_repeated(given: Sequence[ModelWord], number: int) -> bool:
    """Return whether a word could have the place of its neighbour, as the zeros of a table: their number decides."""
    beside = {word.text for word in (*given[max(number - 1, 0) : number], *given[number + 1 : number + 2])}
    return given[number].text in beside


def _widened(  # noqa: PLR0917 - as below
    first: int, last: int, before: int, behind: int, taken: np.ndarray, there: Stream
) -> tuple[int, int]:
    """Return a range of recognised characters with up to so many before and behind it: misread ones of the same word."""
    while before and first and not taken[first - 1] and there.word[first - 1] == there.word[first]:
        first, before = first - 1, before - 1
    while behind and last + 1 < len(taken) and not taken[last + 1] and there.word[last + 1] == there.word[last]:
        last, behind = last + 1, behind - 1
    return first, last


def _of_characters(  # noqa: PLR0917 - a range of recognised characters and its context
    there: Stream, begins: np.ndarray, seen: Sequence[Word], first: int, last: int, placed: Placed
) -> _Place:
    """Return the place of a range of recognised characters in one line: parts of the boxes of their words."""
    words = range(int(there.word[first]), int(there.word[last]) + 1)
    parts = []
    for word in words:
        begin = int(begins[word])
        end = int(begins[word + 1]) if word + 1 < len(seen) else len(there.text)
        length = max(end - begin, 1)
        share = (max(first, begin) - begin) / length, 1 - (end - min(last + 1, end)) / length
        parts.append(_slice(seen[word], *share, backwards=is_right_to_left([seen[word].text])))
    return _Place(around(parts), seen[words[0]].line, placed, words[0], words[-1])


def _slice(word: Word, first: float, last: float, *, backwards: bool = False) -> Box:
    """Return the part of the box of a word between two fractions of its length; `backwards` if it runs from right to left."""
    x0, y0, x1, y1 = word.box
    if len(word.text) > 1 and y1 - y0 > _TALL * (x1 - x0):
        return x0, y0 + first * (y1 - y0), x1, y0 + last * (y1 - y0)
    if backwards:
        first, last = 1 - last, 1 - first
    return x0 + first * (x1 - x0), y0, x0 + last * (x1 - x0), y1


def _between(places: list[_Place | None], given: Sequence[ModelWord], seen: Sequence[Word]) -> None:
    """Place words that were not recognised between words that were, where there is enough space."""
    lines: dict[int, list[Box]] = {}
    for word in seen:
        lines.setdefault(word.line, []).append(word.box)
    around_line = {number: around(boxes) for number, boxes in lines.items()}
    claimed = {word for place in places if place is not None for word in range(place.first, place.last + 1)}
    number = 0
    while number < len(places):
        end = number
        while end < len(places) and places[end] is None:
            end += 1
        if end > number:
            before = places[number - 1] if number else None
            after = places[end] if end < len(places) else None
            run = [word.text for word in given[number:end]]
            found = (
                _on_unclaimed(run, before, after, seen, claimed)
                or _in_gap(run, before, after)
                or _in_white(run, before, after, around_line)
            )
            if found:
                places[number:end] = found
        number = end + 1


def _on_unclaimed(
    run: Sequence[str], before: _Place | None, after: _Place | None, seen: Sequence[Word], claimed: set[int]
) -> list[_Place] | None:
    """Return places on words between two placed words that were recognised as another text."""
    first = before.last + 1 if before is not None else 0
    last = after.first if after is not None else len(seen)
    free = list(takewhile(lambda word: word not in claimed, range(first, last)))
    if not free or len(free) * len(run) > _MOST_PAIRS:
        return None
    characters = sum(len(seen[word].text) for word in free)
    wanted = sum(map(len, run))
    if not _LEAST * wanted <= characters <= _MOST * wanted:
        return None
    found = []
    for part in assign(run, [seen[word].text for word in free]):
        word = free[part.word]
        box = _slice(seen[word], part.begin, part.end, backwards=is_right_to_left(run))
        found.append(_Place(box, seen[word].line, Placed.INTERPOLATED, word, word))
    return found


def _in_gap(run: Sequence[str], before: _Place | None, after: _Place | None) -> list[_Place] | None:
    """Return places in the gap between two words in one row."""
    if before is None or after is None or before.line is None or after.line is None:
        return None
    left, right = sorted((before.box, after.box))
    level = min(left[3], right[3]) - max(left[1], right[1])
    if before.line != after.line and level < _LEVEL * min(left[3] - left[1], right[3] - right[1]):
        return None
    box = (left[2], min(left[1], right[1]), right[0], max(left[3], right[3]))
    if not _fits(run, box):
        return None
    return [_Place(part, before.line, Placed.INTERPOLATED, before.last, after.first) for _, part in shared(run, box)]


def _in_white(
    run: Sequence[str], before: _Place | None, after: _Place | None, lines: dict[int, Box]
) -> list[_Place] | None:
    """Return places in the white space between two consecutive lines, or at the end or the start of one of them."""
    if before is None or after is None or before.line is None or after.line is None:
        return None
    upper, lower = lines[before.line], lines[after.line]
    high = min(upper[3] - upper[1], lower[3] - lower[1])
    x0, x1 = min(upper[0], lower[0]), max(upper[2], lower[2])
    behind, ahead = (before.box[2], upper[1], x1, upper[3]), (x0, lower[1], after.box[0], lower[3])
    if is_right_to_left(run):
        behind, ahead = (x0, upper[1], before.box[0], upper[3]), (after.box[2], lower[1], x1, lower[3])
    rows = int((lower[1] - upper[3]) / max(high, 1.0) / (1 + _ROOM / 4) + (1 - _ROOM)) if lower[0] < upper[2] else 0
    if rows >= 1 and upper[0] < lower[2]:
        return _in_rows(run, (x0, upper[3], x1, lower[1]), rows)
    for line, box, word in ((before.line, behind, before.last), (after.line, ahead, after.first)):
        if box[0] < box[2] and _fits(run, box):
            return [_Place(part, line, Placed.INTERPOLATED, word, word) for _, part in shared(run, box)]
    return None


def _in_rows(run: Sequence[str], box: Box, rows: int) -> list[_Place]:
    """Return places in rows between two lines."""
    x0, y0, x1, y1 = box
    rows = min(rows, len(run))
    cut = np.array_split(np.arange(len(run)), rows)
    pitch = (y1 - y0) / rows
    found = []
    for number, part in enumerate(cut):
        row = (x0, y0 + number * pitch, x1, y0 + (number + 1) * pitch)
        found += [_Place(one, None, Placed.INTERPOLATED) for _, one in shared([run[i] for i in part], row)]
    return found


def _fits(run: Sequence[str], box: Box) -> bool:
    return box[2] - box[0] >= _NARROWEST * (box[3] - box[1]) * (sum(map(len, run)) + len(run))


def _blocks(
    places: Sequence[_Place | None], given: Sequence[ModelWord], boxes: Sequence[Box | None], page: Box
) -> dict[int | None, Box]:
    """Return the box of each block: the box from the model, else the box around its words, else the box of the page."""
    own: dict[int | None, list[Box]] = {}
    for word, found in zip(given, places, strict=True):
        own.setdefault(word.block, []).extend([found.box] if found is not None else [])
    of = {block: around(parts) if parts else page for block, parts in own.items()}
    return of | {index: box for index, box in enumerate(boxes) if box is not None}


def _numbered(places: Sequence[_Place | None], given: Sequence[ModelWord], blocks: dict[int | None, Box]) -> list[Word]:
    """Return the words with line numbers: consecutive words in one line have the same number."""
    found: list[Word] = []
    number, before = -1, None
    for word, place in zip(given, places, strict=True):
        placed = place or _Place(blocks[word.block], None, Placed.BLOCK)
        line = (
            word.block,
            placed.line,
            word.row if placed.line is None else None,
            placed.box[1] if place and placed.line is None else None,
        )
        if line != before:
            number, before = number + 1, line
        x0, y0, x1, y1 = (round(value, 1) for value in placed.box)
        found.append(Word(word.text, (x0, y0, x1, y1), None, number, word.block, placed.placed))
    return found
