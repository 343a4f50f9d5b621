"""Tables: rows and columns by how cells line up, with or without printed lines, written as HTML."""

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

# Lengths are in heights of a cell's text, the table's median.

#: A box this high, with as many letters, holds a slanted heading: it stands over the column that its foot is in.
_SLANTED, _SLANTED_LETTERS = 2.0, 4
#: Pieces are in one row when they share this much of the lower one's height.
_SHARED = 0.4
#: Boxes are drawn this much too wide.
_SLACK = 0.1
#: Share of the rows that may run over the white between two columns.
_CROSSING = 0.12
#: Rows nearer to each other than this share of the usual distance are lines of one row, where one has a single cell.
_NEAR = 0.8
#: Rows of headings, at most.
_MOST_HEADINGS = 4
#: The middle of a heading over several columns is this near theirs; or a rule is this near under it, as long as they are.
_CENTRED, _UNDER = 0.7, 1.3
#: Of the rows of a table, this share has several pieces; these are this narrow in the median, or this share are numbers.
_SEVERAL, _NARROW, _NUMBERS = 0.4, 7.0, 0.3
#: Letters of a cell that is a number with a unit.
_MOST_LETTERS = 2
#: Signs of a cell that stands for no number: a dash, or three dots.
_MOST_SIGNS = 3
_FEWEST = 2
#: A row is full with this share of the pieces that a quarter of the rows have at least.
_FULL = 0.75

_CURRENCY = re.compile(r"[$\u20ac\u00a3\u00a5\u20a3]|CHF|EUR|USD|Fr\.|M\.|Mk\.")
#: What a reader of a model's HTML and Markdown would take for more than itself.
_MARKUP = re.compile(r"[\\`*_\[\]|~<>&$!#^{}]")
_UNIT = re.compile(r"[%)]|\)%")
_YEAR = re.compile(r"(?:1[5-9]|20)[0-9]{2}")

#: Where a column begins and ends, in pixels.
Column = tuple[float, float]


@dataclass(slots=True)
class _Cell:
    lines: list[Line]
    #: of the columns that it stands in
    first: int
    last: int


def is_numeric(text: str) -> bool:
    """Say whether a cell is a number, with its unit or sign, or the dash that stands for none."""
    letters = sum(map(str.isalpha, text))
    return (any(map(str.isdigit, text)) and letters <= _MOST_LETTERS) or (not letters and 0 < len(text) <= _MOST_SIGNS)


def rows_of(lines: Sequence[Line]) -> list[list[Line]]:
    """Return lines in rows, from top to bottom, each from left to right."""
    unit = _unit(lines)
    rows: list[list[Line]] = []
    # The mean top and bottom of the row that is open: one high box doesn't draw the next row in.
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
    """Say whether lines stand in rows of short pieces, or of numbers: a model also takes columns of text for tables."""
    rows = rows_of(lines)
    several = [row for row in rows if len(row) > 1]
    if len(several) < max(_FEWEST, _SEVERAL * len(rows)):
        return False
    cells = [line for row in several for line in row]
    numbers = sum(is_numeric(line.text) for line in cells)
    narrow = float(np.median([width(line.box) for line in cells])) < _NARROW * _unit(lines)
    return narrow or numbers >= _NUMBERS * len(cells)


def columns_of(rows: Sequence[Sequence[Line]], unit: float) -> list[Column]:
    """Return the columns: between them is white in nearly all rows."""
    counts = [len(row) for row in rows if len(row) > 1]
    # Rows with few cells are sections' names and headings over several columns: what they run over may be white.
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
    """Return the table whose cells these lines are; None where there are fewer than two rows or columns.

    `rules` are printed lines across the page: one under a heading shows how many columns that stands over.
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
    """Return the table whose cells these lines are as plain text: a row on a line, tabs between pieces."""
    return "\n".join("\t".join(line.text for line in row) for row in rows_of(lines))


def _unit(lines: Sequence[Line]) -> float:
    return max(float(np.median([height(line.box) for line in lines])), 1.0)


def _is_slanted(line: Line, unit: float) -> bool:
    return height(line.box) > _SLANTED * unit and len(line.text) >= _SLANTED_LETTERS


def _foot(line: Line, unit: float) -> Box:
    """Return a line's box; of a slanted one, the left end of its foot."""
    x0, y0, x1, y1 = line.box
    return (x0, y1 - unit, x0 + unit, y1) if _is_slanted(line, unit) else (x0, y0, x1, y1)


def _place(line: Line, columns: Sequence[Column], unit: float) -> tuple[int, int]:
    """Return the first and the last column that a line stands in."""
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
    """Join columns of nothing but currencies to the next, and those of percent signs to the one before."""
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
    """Put the rows of cells that have several lines into one."""
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
            # What stands alone above it, in the first column, is the name of a section.
            names = 0
            while number - names > 1 and [_place(line, columns, unit) for line in rows[number - names - 1]] == [(0, 0)]:
                names += 1
            return number - names
    return with_number


def _cells(row: Sequence[Line], columns: Sequence[Column], unit: float) -> list[_Cell]:
    """Return the cells of a row, left to right; what stands in one column is one cell, line after line."""
    cells: list[_Cell] = []
    placed = [(number, line) for number, part in enumerate(rows_of(row)) for line in part]
    placed.sort(key=lambda place: (_place(place[1], columns, unit)[0], place[0], place[1].box[0]))
    for _, line in placed:
        first, last = _place(line, columns, unit)
        if cells and first <= cells[-1].last:
            cells[-1].lines.append(line)
            cells[-1].last = max(last, cells[-1].last)
        else:
            cells.append(_Cell([line], first, last))
    return cells


def _widen(cells: Sequence[_Cell], columns: Sequence[Column], unit: float, rules: Sequence[Box]) -> None:
    """Let each heading of a row reach over the columns that it stands over, up to its neighbours."""
    firsts = [*(cell.first for cell in cells[1:]), len(columns)]
    low = 0
    for cell, following in zip(cells, firsts, strict=True):
        free = range(low, following)
        spans = _ruled(cell, columns, unit, rules) or _centred(cell, columns, unit, free)
        if spans[0] in free and spans[1] in free:
            cell.first, cell.last = spans
        low = cell.last + 1


def _ruled(cell: _Cell, columns: Sequence[Column], unit: float, rules: Sequence[Box]) -> tuple[int, int] | None:
    """Return the columns over which the rule right under a heading reaches."""
    x0, y0, x1, y1 = around(line.box for line in cell.lines)
    for left, top, right, bottom in rules:
        under = (y0 + y1) / 2 < (top + bottom) / 2 < y1 + _UNDER * unit
        reached = [i for i, (begin, end) in enumerate(columns) if left < (begin + end) / 2 < right]
        if under and reached and left <= x0 + unit and right >= x1 - unit:
            return min(reached[0], cell.first), max(reached[-1], cell.last)
    return None


def _centred(cell: _Cell, columns: Sequence[Column], unit: float, free: range) -> tuple[int, int]:
    """Return the most columns, of those that are free, that a heading is in the middle of.

    The first column has the names of the rows: headings over the others don't reach over it.
    """
    x0, _, x1, _ = around(line.box for line in cell.lines)
    best = cell.first, cell.last
    for first in range(free.start if cell.first == 0 else max(free.start, 1), cell.first + 1):
        for last in range(cell.last, free.stop):
            off = abs(columns[first][0] + columns[last][1] - x0 - x1) / 2
            if off < _CENTRED * unit and last - first > best[1] - best[0]:
                best = first, last
    return best


def _row(cells: Sequence[_Cell], columns: int, tag: str) -> str:
    written, column = [], 0
    for cell in cells:
        written += [f"<{tag}></{tag}>"] * (cell.first - column)
        span = f' colspan="{cell.last - cell.first + 1}"' if cell.last > cell.first else ""
        text = _MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", " ".join(line.text for line in cell.lines))
        written.append(f"<{tag}{span}>{text}</{tag}>")
        column = cell.last + 1
    written += [f"<{tag}></{tag}>"] * (columns - column)
    return f"<tr>{''.join(written)}</tr>"
