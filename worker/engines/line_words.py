"""The words of a line that a recogniser read: where each begins and ends, told by the ink between its letters.

The recogniser (CTC) says in which column of the line's image it saw each letter: near its middle, never its edges. So a gap
between two words is sought in the ink between their nearest letters.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import cv2
import numpy as np

from ocrfleet.records.pages import Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Crops whose height is this many times their width were turned by a quarter to be read (RapidOCR's get_rotate_crop_image).
_TURNED = 1.5
#: Rows at a word's top and bottom that are parted from its letters by this share of the line's height are a neighbour's.
_PARTED = 0.06
#: A line whose grey levels span less has no ink that can be told from its paper.
_CONTRAST = 30


class Letter(NamedTuple):
    """A character that was read; spaces have no column."""

    text: str
    #: where it was seen, 0..1 of the line's width, from its left
    place: float | None
    #: 0..1
    confidence: float


def letters(text: str, seen: Any) -> list[Letter]:
    """Return the characters of a line with their places; `seen` is RapidOCR's WordInfo of it."""
    columns = (column for word in seen.word_cols for column in word)
    width = max(float(seen.line_txt_len), 1.0)
    found = []
    for character, confidence in zip(text, seen.confs, strict=False):
        place = None if character.isspace() else next(columns, None)
        share = None if place is None else min((place + 0.5) / width, 1.0)
        found.append(Letter(character, share, float(confidence)))
    return found


def words(read: Sequence[Letter], crop: NDArray[np.uint8], view: NDArray[np.float64]) -> tuple[Word, ...]:
    """Return the words of a line in the order in which they were read.

    `crop` is the line's image, BGR, and `view` the corners of what it shows on the page, clockwise from the top left of the
    text, shape (4, 2). Raises nothing: a line without letters has no words.
    """
    groups = _groups(read)
    if not groups:
        return ()
    dark = ink(crop)
    spans = _spans(groups, dark)
    turned = _is_turned(crop, view)
    found = []
    for group, (first, last) in zip(groups, spans, strict=True):
        top, bottom = _rows(dark[:, first:last])
        corners = np.array([(first, top), (last, top), (last, bottom), (first, bottom)]) / (
            crop.shape[1],
            crop.shape[0],
        )
        found.append(
            Word(
                text="".join(letter.text for letter in group),
                box=_on_page(corners, view, turned=turned),
                confidence=round(sum(letter.confidence for letter in group) / len(group), 4),
            )
        )
    return tuple(found)


def gaps(places: Sequence[float], crop: NDArray[np.uint8]) -> list[int]:
    """Return how wide the ink of a line parts between each two places, in pixels; `places` are shares of its width."""
    columns = inked(ink(crop))
    ends = [_gap(columns, round(left * len(columns)), round(right * len(columns))) for left, right in pairwise(places)]
    return [last - first for first, last in ends]


def strokes(crop: NDArray[np.uint8]) -> int:
    """Return into how many pieces, left to right, the ink of a line parts: about one a letter in print."""
    columns = inked(ink(crop))
    return int(np.count_nonzero(np.diff(np.concatenate(([False], columns)).astype(np.int8)) > 0))


def _groups(read: Sequence[Letter]) -> list[list[Letter]]:
    """Part letters at spaces."""
    groups: list[list[Letter]] = [[]]
    for letter in read:
        if letter.text.isspace():
            groups.append([])
        else:
            groups[-1].append(letter)
    return [group for group in groups if any(letter.place is not None for letter in group)]


def ink(crop: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a line's image has ink, dark on light or light on dark."""
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    if np.ptp(grey) < _CONTRAST:
        return np.zeros(grey.shape, np.bool_)
    level, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    dark = grey <= level
    return dark if 2 * int(dark.sum()) <= dark.size else ~dark


def _spans(groups: Sequence[Sequence[Letter]], dark: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first column of each word, and the one behind its last."""
    width = dark.shape[1]
    columns = inked(dark)
    middles = [[letter.place * width for letter in group if letter.place is not None] for group in groups]
    ends = [0]
    for left, right in pairwise(middles):
        ends += _gap(columns, round(max(left)), round(min(right)))
    ends.append(width)
    return [_trimmed(columns, first, max(last, first + 1)) for first, last in zip(ends[::2], ends[1::2], strict=True)]


def inked(dark: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which columns of a line have ink."""
    # Of the middle rows: descenders and ascenders of neighbouring lines are no ink of this one.
    high = dark.shape[0]
    return cast("NDArray[np.bool_]", dark[high // 8 : high - high // 8].any(axis=0))


def _gap(columns: NDArray[np.bool_], first: int, last: int) -> tuple[int, int]:
    """Return the widest stretch without ink between two columns: where it begins and ends."""
    first, last = min(first, last), max(first, last, first + 1)
    edges = np.flatnonzero(np.diff(np.concatenate(([True], columns[first:last], [True])).astype(np.int8))).reshape(
        -1, 2
    )
    if not len(edges):
        return (first + last) // 2, (first + last) // 2
    begin, end = edges[int(np.argmax(edges[:, 1] - edges[:, 0]))].tolist()
    return first + begin, first + end


def _trimmed(inked: NDArray[np.bool_], first: int, last: int) -> tuple[int, int]:
    """Return the columns without those at the ends that have no ink."""
    columns = np.flatnonzero(inked[first:last])
    return (first + int(columns[0]), first + int(columns[-1]) + 1) if len(columns) else (first, last)


def _rows(dark: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the first row of a word's ink and the one behind its last, without what reaches in from neighbouring lines."""
    high = dark.shape[0]
    inked = dark.any(axis=1)
    rows = np.flatnonzero(inked)
    if not len(rows):
        return 0, high
    parts = np.split(rows, np.flatnonzero(np.diff(rows) > max(_PARTED * high, 1.0)) + 1)
    # What touches the image's edge, apart from the rest, belongs to the line above or below.
    own = [part for part in parts if not (len(parts) > 1 and (part[0] == 0 or part[-1] == high - 1))] or parts
    top, bottom = int(own[0][0]), int(own[-1][-1]) + 1
    return (top, bottom) if 2 * (bottom - top) > high / 2 or len(parts) == 1 else (int(rows[0]), int(rows[-1]) + 1)


def _is_turned(crop: NDArray[np.uint8], view: NDArray[np.float64]) -> bool:
    width, height = np.linalg.norm(view[1] - view[0]), np.linalg.norm(view[3] - view[0])
    return bool(height >= _TURNED * width and crop.shape[1] > crop.shape[0])


def _on_page(
    corners: NDArray[np.float64], view: NDArray[np.float64], *, turned: bool
) -> tuple[float, float, float, float]:
    """Return the box of corners, given in shares of the line's image, on the page."""
    across, down = (1 - corners[:, 1], corners[:, 0]) if turned else (corners[:, 0], corners[:, 1])
    top = view[0] + across[:, None] * (view[1] - view[0])
    bottom = view[3] + across[:, None] * (view[2] - view[3])
    points = top + down[:, None] * (bottom - top)
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return round(x0, 1), round(y0, 1), round(x1, 1), round(y1, 1)
