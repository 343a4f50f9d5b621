"""The grid of a table: which cell stands in which columns of each row, those that cells above span among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from worker.formats.elements import Cell, Table

#: Columns up to which a cell may span others. What reaches further is a mistake of a model, and takes one column.
_MOST_COLUMNS = 1000

_EMPTY = Cell("")


@dataclass(frozen=True, slots=True)
class Slot:
    """Columns of a row that one cell takes."""

    column: int
    columns: int
    #: None where a cell of a row above reaches into this row
    cell: Cell | None


def grid(table: Table) -> list[list[Slot]]:
    """Return the slots of each row in order. Every row has the same number of columns; missing cells are empty ones."""
    #: by row: the columns into which cells above reach, and how wide those are
    covered: list[dict[int, int]] = [{} for _ in table.rows]
    rows = [list(_row(number, cells, covered)) for number, cells in enumerate(table.rows)]
    width = max((_end(row) for row in rows), default=0)
    for row in rows:
        if _end(row) < width:
            row += [Slot(column, 1, _EMPTY) for column in range(_end(row), width)]
    return rows


def _row(number: int, cells: tuple[Cell, ...], covered: list[dict[int, int]]) -> Iterator[Slot]:
    column, above = 0, sorted(covered[number])
    waiting = list(reversed(cells))
    while waiting or above:
        if above and above[0] == column:
            width = covered[number][above.pop(0)]
            yield Slot(column, width, None)
        elif waiting:
            cell = waiting.pop()
            width = cell.columns if column + cell.columns <= _MOST_COLUMNS else 1
            width = min(width, above[0] - column) if above else width
            for below in range(number + 1, min(number + cell.rows, len(covered))):
                covered[below][column] = width
            yield Slot(column, width, cell)
        else:
            width = 1
            yield Slot(column, width, _EMPTY)
        column += width


def _end(row: list[Slot]) -> int:
    return row[-1].column + row[-1].columns if row else 0
