"""Finds running heads, feet and page numbers: the lines at a page's edges that are no part of its text.

The layout model finds most of them. The others are recognised by position: rows at the edge, separated from the text, that are
a number, have one at their end, or are short pieces far apart. On a page with little text only the page number is found: a
short line at the edge may be all of the text.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ocrfleet.records.pages import Role
from worker.engines.layout.geometry import Box, around, covers, height, width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocrfleet.records.pages import Line
    from worker.engines.layout.regions import Region

#: Heads are in this upper share of the area of a page's text, feet in the same lower share, in at most so many rows.
_ZONE, _MOST_ROWS = 0.2, 5
#: The fewest lines of a page with heads and feet.
_FEWEST_LINES = 8
#: The most characters of a row that may be a head or a foot.
_LONGEST = 160
#: The gap between such a row and the text exceeds the page's usual gap by this much, in line heights.
_APART = 0.35
#: Lines are in one row if they overlap by this share of the smaller height.
_SHARED = 0.4
#: A number in a row of its own is centred if it is at most this share of the text's width away from the middle.
_CENTRE = 0.03
#: Pieces are far apart if all gaps are at least this many times as wide as the widest piece.
_FAR = 0.7
#: A line at least this many times higher than wide runs up or down; in this outer share of the page it is no text.
_SIDEWAYS, _MARGIN = 2.5, 0.12
_FEWEST_SIDEWAYS_LETTERS = 3

_ROMAN = r"[ivxlcdm]{1,8}|[IVXLCDM]{1,8}"
_NUMBER = re.compile(
    r"[-\u2013\u2014\[(|.*\s]*(?:page|p\.|seite|s\.|pag\.|fol\.)?\s*"
    rf"(?:[0-9]{{1,5}}|{_ROMAN})(?:\s*(?:/|of|von|sur|de)\s*[0-9]{{1,5}})?[-\u2013\u2014\])|.*\s]*",
    re.IGNORECASE,
)
#: A title in capitals with a number before or after it, on one line.
_CAPITALS = re.compile(r"[0-9]{1,4}[.\s]+[^\W\d_a-z][^a-z0-9]{2,60}|[^\W\d_a-z][^a-z0-9]{2,60}[.\s]+[0-9]{1,4}")
#: The layout model's labels of heads and feet, and those of other regions.
_LABELS = {Role.HEADER: "header", Role.FOOTER: "footer"}
_TEXT = frozenset({"title", "table", "table_caption"})

Row = list[int]


def is_number(text: str) -> bool:
    """Say whether a line is only a page number: `12`, `- 12 -`, `xiv`, `Page 3 of 10`."""
    return _NUMBER.fullmatch(text.strip()) is not None


def find(lines: Sequence[Line], regions: Sequence[Region], *, page_width: int) -> dict[int, Role]:
    """Return the roles of the lines that are heads, feet and page numbers, by their indices."""
    boxes = [line.box for line in lines]
    found = {
        index: Role.HEADER
        for index, box in enumerate(boxes)
        if height(box) > _SIDEWAYS * width(box)
        and len(lines[index].text) >= _FEWEST_SIDEWAYS_LETTERS
        and (box[2] < _MARGIN * page_width or box[0] > (1 - _MARGIN) * page_width)
    }
    rows = _rows([index for index in range(len(lines)) if index not in found], boxes)
    if len(rows) > 1:
        page = _Page(lines, boxes, regions, rows)
        found |= page.edge(Role.HEADER, rows) | page.edge(Role.FOOTER, rows[::-1])
    return found if len(found) < len(lines) else {}


class _Page:
    def __init__(self, lines: Sequence[Line], boxes: Sequence[Box], regions: Sequence[Region], rows: list[Row]) -> None:
        self._lines = lines
        self._boxes = boxes
        self._regions = regions
        upright = [index for row in rows for index in row]
        self._text = around(boxes[index] for index in upright)
        self._unit = max(float(np.median([height(boxes[index]) for index in upright])), 1.0)
        self._usual = float(np.median([self._gap(row, following) for row, following in pairwise(rows)]))
        self._full = len(upright) >= _FEWEST_LINES

    def edge(self, role: Role, rows: list[Row]) -> dict[int, Role]:
        """Return those of the rows, ordered from the page's edge inwards, that are heads or feet."""
        found: dict[int, Role] = {}
        pending: dict[int, Role] = {}
        for row, following in list(pairwise(rows))[:_MOST_ROWS]:
            apart = (self._gap(row, following) - self._usual) / self._unit > _APART
            if not self._is_outside(role, row) or not self._is_taken(role, row, apart=apart):
                break
            pending |= {index: Role.PAGE_NUMBER if is_number(self._lines[index].text) else role for index in row}
            if apart or self._is_centred_number(row):  # rows without a gap to the text are part of it
                found |= pending
                pending = {}
        return found

    def _is_outside(self, role: Role, row: Row) -> bool:
        top, bottom = self._text[1], self._text[3]
        place = np.mean([self._boxes[index][1::2] for index in row])
        return bool((place - top if role is Role.HEADER else bottom - place) <= _ZONE * (bottom - top))

    def _is_taken(self, role: Role, row: Row, *, apart: bool) -> bool:
        numbers = [index for index in row if is_number(self._lines[index].text)]
        if not self._full:
            return apart and len(numbers) == len(row)
        if sum(len(self._lines[index].text) for index in row) > _LONGEST:
            return False
        if self._is_seen(row, frozenset({_LABELS[role]})):
            return True
        if self._is_seen(row, _TEXT):
            return False
        at_end = bool(numbers) and (row[0] in numbers or row[-1] in numbers)
        at_end |= len(row) == 1 and _CAPITALS.fullmatch(self._lines[row[0]].text.strip()) is not None
        return self._is_centred_number(row) or (apart and (at_end or self._is_spread(row)))

    def _is_seen(self, row: Row, labels: frozenset[str]) -> bool:
        """Say whether the model has one of these labels for a line of the row."""
        seen = [region.box for region in self._regions if region.label in labels]
        return any(covers(box, self._boxes[index]) for box in seen for index in row)

    def _is_centred_number(self, row: Row) -> bool:
        if len(row) > 1 or not is_number(self._lines[row[0]].text):
            return False
        left, _, right, _ = self._text
        x0, _, x1, _ = self._boxes[row[0]]
        return abs(x0 + x1 - left - right) / 2 < _CENTRE * (right - left)

    def _is_spread(self, row: Row) -> bool:
        """Say whether a row is three or four short pieces far apart: left, middle, right."""
        gaps = [self._boxes[right][0] - self._boxes[left][2] for left, right in pairwise(row)]
        return len(row) in {3, 4} and min(gaps) > _FAR * max(width(self._boxes[index]) for index in row)

    def _gap(self, row: Row, other: Row) -> float:
        """Return the gap between two rows, whichever is above; negative if they overlap."""
        first, second = (around(self._boxes[index] for index in indices) for indices in (row, other))
        return max(second[1] - first[3], first[1] - second[3])


def _rows(indices: list[int], boxes: Sequence[Box]) -> list[Row]:
    """Return the lines in rows across the whole page, from top to bottom, each from left to right."""
    rows: list[Row] = []
    for index in sorted(indices, key=lambda index: (boxes[index][1] + boxes[index][3], boxes[index][0])):
        box = boxes[index]
        if rows:
            row = around(boxes[other] for other in rows[-1])
            if min(row[3], box[3]) - max(row[1], box[1]) > _SHARED * min(height(row), height(box)):
                rows[-1].append(index)
                continue
        rows.append([index])
    return [sorted(row, key=lambda index: boxes[index][0]) for row in rows]
