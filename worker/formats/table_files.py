"""Each table as a CSV file (RFC 4180, UTF-8), in a zip file, with a list of them.

A cell that spans others stands in the first of them; the others are empty, so that columns stay in line. What a spreadsheet
would take for a formula gets an apostrophe in front: https://owasp.org/www-community/attacks/CSV_Injection.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import PageResult
from worker.formats.archive import Archive
from worker.formats.content import content, visible
from worker.formats.elements import Table
from worker.formats.inline import plain
from worker.formats.materials import Materials
from worker.formats.table_grid import grid

#: Begins a formula, unless it is a mere number with a sign.
_FORMULA = re.compile(r"[=@\t]|[+-](?![\d.,\s]*%?$)")


class TablesWriter:
    """Writes one document's tables to a stream, page by page."""

    def __init__(self, out: BinaryIO, _: Materials) -> None:
        self._archive = Archive(out)
        self._list = Listing("file", "page", "rows", "columns", "caption")

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:
        """Nothing comes before the first table."""

    def page(self, result: PageResult) -> None:
        tables = [part for part in content(result) if isinstance(part, Table)]
        for number, table in enumerate(tables, 1):
            name = f"page-{result.page:06d}-table-{number:02d}.csv"
            rows = texts(table)
            self._archive.write(name, csv_bytes(rows))
            self._list.add(name, result.page, len(rows), len(rows[0]) if rows else 0, visible(plain(table.caption)))

    def end(self) -> None:
        self._archive.write("tables.csv", self._list.bytes())
        self._archive.close()


class Listing:
    """The list of an archive's files, as CSV: some dozen bytes for each."""

    def __init__(self, *headings: str) -> None:
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text)
        self._writer.writerow(headings)

    def add(self, *cells: object) -> None:
        self._writer.writerow([inert(cell) if isinstance(cell, str) else cell for cell in cells])

    def bytes(self) -> bytes:
        return self._text.getvalue().encode()


def texts(table: Table) -> list[list[str]]:
    """Return a table's texts row by row, all rows of the same length; spanning cells are followed by empty ones."""
    rows = []
    for slots in grid(table):
        row: list[str] = []
        for slot in slots:
            row += [visible(slot.cell.text) if slot.cell is not None else "", *[""] * (slot.columns - 1)]
        rows.append(row)
    return rows


def csv_bytes(rows: Iterable[Sequence[str]]) -> bytes:
    """Return rows of texts as CSV that no spreadsheet calculates."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([inert(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def inert(text: str) -> str:
    """Return a cell's text so that a spreadsheet shows it and does nothing."""
    return f"'{text}" if _FORMULA.match(text) else text
