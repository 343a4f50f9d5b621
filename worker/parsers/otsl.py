"""Convert tables from OTSL to HTML.

Each tag is a cell of a grid: one with text (`<fcel>`), an empty one (`<ecel>`), or one that belongs to the cell at its
left (`<lcel>`), above it (`<ucel>`) or both (`<xcel>`); `<nl>` ends a row (https://arxiv.org/abs/2305.03393).
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

TAGS = FULL, EMPTY, LEFT, UP, CROSS, ROW_END = "<fcel>", "<ecel>", "<lcel>", "<ucel>", "<xcel>", "<nl>"
#: columns or rows that one cell takes at most: our Markdown passes on three digits
MAX_SPAN = 999

_SPANNED = frozenset({LEFT, UP, CROSS})
_LINES = re.compile(r"\s*\n\s*")


@dataclass(slots=True)
class TaggedCell:
    """One cell of the grid, with its tag and the text after it."""

    tag: str
    text: str
    #: whether it belongs to another cell
    taken: bool = False

    def __post_init__(self) -> None:
        self.text = self.text.strip()

    @property
    def free(self) -> bool:
        """Whether another cell can span this one. A cell with text can't be spanned, whatever its tag says."""
        return self.tag in _SPANNED and not self.text and not self.taken


def table(rows: list[list[TaggedCell]]) -> tuple[str, int]:
    """Return the grid as an HTML table without empty lines, and how many cells claim to be part of one that isn't there.

    Rows may have different lengths. Each place is looked at once by the cell that it could belong to, so that the time is
    in proportion to the number of places.
    """
    lines, lost = [], 0
    for at, row in enumerate(rows):
        cells = []
        for column, cell in enumerate(row):
            if cell.taken:
                continue
            lost += cell.free
            wide, high = (1, 1) if cell.free else _spans(rows, at, column)
            spans = "".join(f' {name}="{span}"' for name, span in (("rowspan", high), ("colspan", wide)) if span > 1)
            cells.append(f"<td{spans}>{_LINES.sub('<br>', html.escape(cell.text, quote=False))}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>", lost


def _spans(rows: list[list[TaggedCell]], at: int, column: int) -> tuple[int, int]:
    """Claim the cells to the right and below that a cell spans. Return its number of columns and rows."""
    row = rows[at]
    wide = 1
    while column + wide < len(row) and wide < MAX_SPAN and row[column + wide].tag == LEFT and row[column + wide].free:
        row[column + wide].taken = True
        wide += 1
    high = 1
    while at + high < len(rows) and high < MAX_SPAN:
        below = rows[at + high][column : column + wide]
        if len(below) < wide or below[0].tag == LEFT or not all(cell.free for cell in below):
            break
        for cell in below:
            cell.taken = True
        high += 1
    return wide, high
