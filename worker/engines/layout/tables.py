"""Tables: finds rows and columns by the alignment of cells, with or without printed rules, and writes them as HTML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from worker.engines.layout.geometry import Box, around, height, width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocrfleet.records.pages import Line

# Lengths are in text heights: the median of the table's cells.

#: A box at least this high, with at least so many letters, is a slanted heading. It belongs to the column of its lower end.
_SLANTED, _SLANTED_LETTERS = 2.0, 4
#: Pieces are in one row if they overlap by this share of the smaller height.
_SHARED = 0.4
#: Boxes are too wide by about this much.
_SLACK = 0.1
#: The share of rows that may cross the gap between two columns.
_CROSSING = 0.12
#: Rows nearer to each other than this share of the usual distance are lines of one row, if one of them has a single cell.
_NEAR = 0.8
#: The most rows of headings.
_MOST_HEADINGS = 4
#: The middle of a heading over several columns is at most this far from theirs; or a rule as long as the columns is at most this
#: far below it.
_CENTRED, _UNDER = 0.7, 1.3
#: In a table, at least this share of the rows has several pieces; these are at most this wide in the median, or at least this
#: share of them are numbers.
_SEVERAL, _NARROW, _NUMBERS = 0.4, 7.0, 0.3
#: The most letters of a cell that is a number with a unit.
_MOST_LETTERS = 2
#: The most characters of a cell that stands for a missing number: a dash, or three dots.
_MOST_SIGNS = 3
_FEWEST = 2
#: A row is full if it has this share of the number of pieces that the fullest quarter of the rows has.
_FULL = 0.75

_CURRENCY = re.compile(r"[$\u20ac\u00a3\u00a5\u20a3]|CHF|EUR|USD|Fr\.|M\.|Mk\.")
#: Characters with a meaning in HTML or Markdown, which are written as character references.
_MARKUP = re.compile(r"[\\`*_\[\]|~<>&$!#^{}]")
_UNIT = re.compile(r"[%)]|\)%")
_YEAR = re.compile(r"(?:1[5-9]|20)[0-9]{2}")

#: The left and right edge of a column, in pixels.
Column = tuple[float, float]


@dataclass(slots=True)
class _PlacedCell:
    lines: list[Line]
    #: of the columns that the cell is in
    first: int
    last: int


def is_numeric(text: str) -> bool:
    """Say whether a cell is a number, with a unit or a sign, or a dash in place of one."""
    letters = sum(map(str.isalpha, text))
    return (any(map(str.isdigit, text)) and letters <= _MOST_LETTERS) or (not letters and 0 < len(text) <= _MOST_SIGNS)


def rows_of(lines: Sequence[Line]) -> list[list[Line]]:
    """Return lines in rows, from top to bottom, each from left to right."""
    unit = _unit(lines)
    rows: list[list[Line]] = []
    # The mean top and bottom of the current row, so that one high box doesn't join the next row to it.
    top = bottom = 0.0
    for line in sorted(lines, key=lambda line: (_foot(line, unit)[1] + _foot(line, unit)[3], line.box[0])):
        _, y0, _, y1 = _foot(line, unit)
        if rows and min(bottom, y1) - max(top, y0) > _SHARED * min(bottom - top, y1 - y0):
            rows[-1].append(line)
            count = len(rows[-1])
            top, bottom = top + (y0 - top) / count, bottom + (y1 - bottom) / count
        else:
            rows.append([line])
            top, bottom = y0, y1
    return [sorted(row, key=lambda line: line.box[0]) for row in rows]


def looks_like_table(lines: Sequence[Line]) -> bool:
    """Say whether lines form rows of short pieces or of numbers. The layout model also labels columns of text as tables."""
    rows = rows_of(lines)
    several = [row for row in rows if len(row) > 1]
    if len(several) < max(_FEWEST, _SEVERAL * len(rows)):
        return False
    cells = [line for row in several for line in row]
    numbers = sum(is_numeric(line.text) for line in cells)
    narrow = float(np.median([width(line.box) for line in cells])) < _NARROW * _unit(lines)
    return narrow or numbers >= _NUMBERS * len(cells)


def columns_of(rows: Sequence[Sequence[Line]], unit: float) -> list[Column]:
    """Return the columns. The gaps between them are white in nearly all rows."""
    counts = [len(row) for row in rows if len(row) > 1]
    # Rows with few cells are section names and headings over several columns. They may cross a gap.
    fewest = max(_FULL * float(np.percentile(counts, 75)), _FEWEST) if counts else _FEWEST
    full = [row for row in rows if len(row) >= fewest]
    slack = _SLACK * unit
    pieces = [
        (line.box[0] + slack, max(line.box[2] - slack, line.box[0] + slack + 1))
        for row in full
        for line in row
        if not _is_slanted(line, unit)
    ]
    if not pieces:
        return []
    begins, ends = (np.array(side) for side in zip(*pieces, strict=True))
    edges = np.unique(np.concatenate((begins, ends)))
    middles = (edges[:-1] + edges[1:]) / 2
    over = np.searchsorted(np.sort(begins), middles) - np.searchsorted(np.sort(ends), middles)
    columns: list[Column] = []
    for left, right, inked in zip(
        edges[:-1].tolist(), edges[1:].tolist(), over > int(_CROSSING * len(full)), strict=True
    ):
        if inked and columns and columns[-1][1] == left:
            columns[-1] = columns[-1][0], right
        elif inked:
            columns.append((left, right))
    return columns


def to_html(lines: Sequence[Line], rules: Sequence[Box] = ()) -> str | None:
    """Return a table with these lines as cells, as HTML; None if it has fewer than two rows or columns.

    `rules` are printed rules across the page: one under a heading shows how many columns the heading covers.
    """
    unit = _unit(lines)
    rows = rows_of(lines)
    columns = _joined(columns_of(rows, unit), rows, unit)
    if min(len(columns), len(rows)) < _FEWEST:
        return None
    rows = _merged(rows, columns, unit)
    body = _body(rows, columns, unit)
    written = []
    for number, row in enumerate(rows):
        cells = _cells(row, columns, unit)
        if number < body:
            _widen(cells, columns, unit, rules)
        written.append(_row(cells, len(columns), "th" if number < body else "td"))
    return "\n".join(["<table>", *written, "</table>"])


def to_text(lines: Sequence[Line]) -> str:
    """Return a table with these lines as cells, as plain text: a line for each row, tabs between the pieces."""
    return "\n".join("\t".join(line.text for line in row) for row in rows_of(lines))


def _unit(lines: Sequence[Line]) -> float:
    return max(float(np.median([height(line.box) for line in lines])), 1.0)


def _is_slanted(line: Line, unit: float) -> bool:
    return height(line.box) > _SLANTED * unit and len(line.text) >= _SLANTED_LETTERS


def _foot(line: Line, unit: float) -> Box:
    """Return a line's box; for a slanted line, the left end of its lower edge."""
    x0, y0, x1, y1 = line.box
    return (x0, y1 - unit, x0 + unit, y1) if _is_slanted(line, unit) else (x0, y0, x1, y1)


def _place(line: Line, columns: Sequence[Column], unit: float) -> tuple[int, int]:
    """Return the first and the last column that a line covers."""
    x0, _, x1, _ = _foot(line, unit)
    shared = [min(x1, right) - max(x0, left) for left, right in columns]
    most = max(shared)
    if most <= 0:
        middle = (x0 + x1) / 2
        nearest = min(range(len(columns)), key=lambda i: max(columns[i][0] - middle, middle - columns[i][1]))
        return nearest, nearest
    inside = [i for i, (left, right) in enumerate(columns) if shared[i] == most or shared[i] > (right - left) / 2]
    return inside[0], inside[-1]


def _joined(columns: list[Column], rows: Sequence[Sequence[Line]], unit: float) -> list[Column]:
    """Join a column of currency signs to the next column, and one of percent signs to the previous one."""
    texts: list[list[str]] = [[] for _ in columns]
    for line in (line for row in rows for line in row if columns):
        first, last = _place(line, columns, unit)
        if first == last:
            texts[first].append(line.text.strip())
    joined: list[Column] = []
    begin: float | None = None
    for (left, right), found in zip(columns, texts, strict=True):
        if found and all(map(_CURRENCY.fullmatch, found)):
            begin = left if begin is None else begin
        elif found and joined and begin is None and all(map(_UNIT.fullmatch, found)):
            joined[-1] = joined[-1][0], right
        else:
            joined.append((left if begin is None else begin, right))
            begin = None
    return joined if begin is None else [*joined, (begin, columns[-1][1])]


def _merged(rows: list[list[Line]], columns: Sequence[Column], unit: float) -> list[list[Line]]:
    """Merge the rows of a cell that has several lines into one row."""
    middles = [float(np.mean([sum(_foot(line, unit)[1::2]) / 2 for line in row])) for row in rows]
    usual = float(np.median(np.diff(middles)))
    merged = [rows[0]]
    for row, (above, here) in zip(rows[1:], pairwise(middles), strict=True):
        single = any(len({_place(line, columns, unit)[0] for line in part}) == 1 for part in (merged[-1], row))
        if here - above < _NEAR * usual and single and len(row) + len(merged[-1]) > _FEWEST:
            merged[-1] = [*merged[-1], *row]
        else:
            merged.append(row)
    return merged


def _body(rows: Sequence[Sequence[Line]], columns: Sequence[Column], unit: float) -> int:
    """Return the number of the first row that is not a heading.

    It is the first row with mostly numbers, else the first with any number after the first row, else the second; a table has
    at most `_MOST_HEADINGS` rows of headings.
    """
    with_number = 1
    for number, row in reversed(list(enumerate(rows[: _MOST_HEADINGS + 1]))):
        if number and any(is_numeric(line.text) and not _YEAR.fullmatch(line.text.strip()) for line in row):
            with_number = number
    for number, row in enumerate(rows[: _MOST_HEADINGS + 1]):
        behind = [line.text for line in row if _place(line, columns, unit)[0] > 0]
        numbers = sum(is_numeric(text) and not _YEAR.fullmatch(text.strip()) for text in behind)
        if numbers and numbers * 2 >= len(behind):
            # A cell alone in the row above, in the first column, is the name of a section.
            names = 0
            while number - names > 1 and [_place(line, columns, unit) for line in rows[number - names - 1]] == [(0, 0)]:
                names += 1
            return number - names
    return with_number


def _cells(row: Sequence[Line], columns: Sequence[Column], unit: float) -> list[_PlacedCell]:
    """Return the cells of a row, left to right. Lines in the same column are one cell."""
    cells: list[_PlacedCell] = []
    placed = [(number, line) for number, part in enumerate(rows_of(row)) for line in part]
    placed.sort(key=lambda place: (_place(place[1], columns, unit)[0], place[0], place[1].box[0]))
    for _, line in placed:
        first, last = _place(line, columns, unit)
        if cells and first <= cells[-1].last:
            cells[-1].lines.append(line)
            cells[-1].last = max(last, cells[-1].last)
        else:
            cells.append(_PlacedCell([line], first, last))
    return cells


def _widen(cells: Sequence[_PlacedCell], columns: Sequence[Column], unit: float, rules: Sequence[Box]) -> None:
    """Extend each heading of a row to all columns below it, up to its neighbours."""
    firsts = [*(cell.first for cell in cells[1:]), len(columns)]
    low = 0
    for cell, following in zip(cells, firsts, strict=True):
        free = range(low, following)
        spans = _ruled(cell, columns, unit, rules) or _centred(cell, columns, unit, free)
        if spans[0] in free and spans[1] in free:
            cell.first, cell.last = spans
        low = cell.last + 1


def _ruled(cell: _PlacedCell, columns: Sequence[Column], unit: float, rules: Sequence[Box]) -> tuple[int, int] | None:
    """Return the columns that the rule directly below a heading covers."""
    x0, y0, x1, y1 = around(line.box for line in cell.lines)
    for left, top, right, bottom in rules:
        under = (y0 + y1) / 2 < (top + bottom) / 2 < y1 + _UNDER * unit
        reached = [i for i, (begin, end) in enumerate(columns) if left < (begin + end) / 2 < right]
        if under and reached and left <= x0 + unit and right >= x1 - unit:
            return min(reached[0], cell.first), max(reached[-1], cell.last)
    return None


def _centred(cell: _PlacedCell, columns: Sequence[Column], unit: float, free: range) -> tuple[int, int]:
    """Return the largest range of free columns whose middle is the heading's.

    The first column has the names of the rows: headings of other columns don't extend to it.
    """
    x0, _, x1, _ = around(line.box for line in cell.lines)
    best = cell.first, cell.last
    for first in range(free.start if cell.first == 0 else max(free.start, 1), cell.first + 1):
        for last in range(cell.last, free.stop):
            off = abs(columns[first][0] + columns[last][1] - x0 - x1) / 2
            if off < _CENTRED * unit and last - first > best[1] - best[0]:
                best = first, last
    return best


def _row(cells: Sequence[_PlacedCell], columns: int, tag: str) -> str:
    written, column = [], 0
    for cell in cells:
        written += [f"<{tag}></{tag}>"] * (cell.first - column)
        span = f' colspan="{cell.last - cell.first + 1}"' if cell.last > cell.first else ""
        text = _MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", " ".join(line.text for line in cell.lines))
        written.append(f"<{tag}{span}>{text}</{tag}>")
        column = cell.last + 1
    written += [f"<{tag}></{tag}>"] * (columns - column)
    return f"<tr>{''.join(written)}</tr>"
