"""Ink in the rows of a page that was found but not read: leaders of dots, single digits of tables, scripts without a model.

It comes as words whose characters are not known, so that the words of a model's text can be placed on them.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ocrfleet.records.pages import Word
from worker.words.rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from worker.formats.page_layout import Box

#: Stands for a character that was not read. No letter is equal to it.
UNREAD = "\N{REPLACEMENT CHARACTER}"
# All lengths are in heights of a row.
#: The greatest height and width of a mark: rules and pictures are larger. Its sides are at least the last: smaller ones are dirt.
_HIGHEST, _WIDEST, _SMALLEST = 1.3, 6.0, 0.08
#: Marks are parts of one word if less than this is between them: a space is a quarter of an em, a row of a line's box 1.3 em.
_SPACE = 0.15
#: What is higher than this many rows, and higher than wide, is no line.
_TALL = 1.5
#: Width of a usual character.
_CHARACTER = 0.5
#: A pixel is ink if it is darker than the mean around it by this, of 255; the mean is over so many heights.
_DARKER, _AROUND = 24, 2.0


def with_unread(
    grey: NDArray[np.uint8], words: Sequence[Word], lines: Sequence[Box], *, backwards: bool = False
) -> list[Word]:
    """Return the words that were read and the unread ones beside them, in reading order.

    `grey` is the page image, upright. `lines` are the boxes of all lines that were found, also of those that were not read. An
    unread word follows the word before it in its row and is in the same line; in a row where nothing was read, it follows the row
    above. `backwards`: the script runs from right to left.
    """
    if not lines and not words:
        return []
    tall = _TALL * median(y1 - y0 for _, y0, _, y1 in [*lines, *(word.box for word in words)])
    # Numbers below each other that were read as one line.
    words = [word for word in words if not (_is_column(word.box, tall) and not any(map(str.isalpha, word.text)))]
    lines = [box for box in lines if not _is_column(box, tall)]
    boxes = [*lines, *(word.box for word in words)]
    if not boxes:
        return []
    marks = _marks(grey, [word.box for word in words], lines, median(y1 - y0 for _, y0, _, y1 in boxes))
    #: the unread words that follow each word; -1: those before the first
    after: dict[int, list[Word]] = {}
    last, number = -1, max((word.line for word in words), default=-1)
    for row in rows_of(boxes):
        read = [index - len(lines) for index in row if index >= len(lines)]
        middle = median((boxes[index][1] + boxes[index][3]) / 2 for index in row)
        height = median(boxes[index][3] - boxes[index][1] for index in row)
        own = np.abs(marks[:, 1] + marks[:, 3] - 2 * middle) < height
        unread = _joined(marks[own], height)
        marks = marks[~own]
        number += 1
        places = [(words[index].box[0], index, None) for index in read] + [(box[0], -1, box) for box in unread]
        for _, index, box in sorted(places, key=lambda place: -place[0] if backwards else place[0]):
            if box is None:
                last = index
                continue
            text = UNREAD * max(round((box[2] - box[0]) / (_CHARACTER * height)), 1)
            line = words[last].line if last in read else number
            place = round(box[0], 1), round(middle - height / 2, 1), round(box[2], 1), round(middle + height / 2, 1)
            after.setdefault(last, []).append(Word(text, place, None, line))
        last = max(read, default=last)
    return [*after.get(-1, ()), *(one for index, word in enumerate(words) for one in (word, *after.get(index, ())))]


def _is_column(box: Box, tall: float) -> bool:
    x0, y0, x1, y1 = box
    return y1 - y0 > max(tall, x1 - x0)


def _marks(grey: NDArray[np.uint8], read: Sequence[Box], lines: Sequence[Box], height: float) -> NDArray[np.float64]:
    """Return the boxes of the marks outside of the words that were read, shape (n, 4)."""
    # As dark as the text is: what shows through the paper is lighter.
    text = np.concatenate([grey[int(y0) : int(y1), int(x0) : int(x1)].ravel() for x0, y0, x1, y1 in lines or read])
    level, _ = cv2.threshold(text, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    around = max(int(_AROUND * height) | 1, 3)
    ink = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, around, _DARKER)
    ink[grey > level] = 0
    near = _SPACE * height  # what is nearer to a word than a space is a part of it
    for x0, y0, x1, y1 in read:
        ink[max(int(y0 - near), 0) : int(y1 + near) + 1, max(int(x0 - near), 0) : int(x1 + near) + 1] = 0
    _, _, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    x, y, width, tall = stats[1:, :4].astype(np.float64).T
    kept = (tall <= _HIGHEST * height) & (width <= _WIDEST * height) & (np.minimum(width, tall) >= _SMALLEST * height)
    return np.asarray(np.stack((x, y, x + width, y + tall), axis=1)[kept])


def _joined(marks: NDArray[np.float64], height: float) -> list[Box]:
    """Return the boxes of words: marks in a row with less than a space between them."""
    words: list[list[float]] = []
    for x0, y0, x1, y1 in marks[np.argsort(marks[:, 0], kind="stable")].tolist():
        if words and x0 - words[-1][2] < _SPACE * height:
            last = words[-1]
            words[-1] = [last[0], min(last[1], y0), max(last[2], x1), max(last[3], y1)]
        else:
            words.append([x0, y0, x1, y1])
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in words]
