"""Tables that a model wrote, made into rows of cells: from HTML tags as they come, and from lines with pipes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from worker.formats.elements import Cell, Table
from worker.formats.inline import plain, unescape

#: Tags of a table: these alone stay HTML.
TAGS = frozenset({"table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption"})

#: As many columns or rows as HTML lets a cell span, nearly; what is more was a model's mistake.
_MOST_SPANNED = 999
_SPAN = re.compile(r"\b(row|col)span\s*+=\s*+[\"']?+([0-9]{1,3})(?![0-9])", re.IGNORECASE)
_STRONG = re.compile(r"\*\*([^*]++)\*\*")
_EMPTY_LINES = re.compile(r"\n[ \t]*+\n\s*+")

_DELIMITER = re.compile(r"\|?[ \t]*+:?-++:?[ \t]*+(?:\|[ \t]*+:?-++:?[ \t]*+)*+\|?")
#: what parts cells of a line; an escaped pipe doesn't
_PIPES = re.compile(r"\\.|\|")


class TableReader:
    """Takes the tags and texts of one table, whatever their order; what is missing, or too much, is made up for."""

    def __init__(self) -> None:
        self._caption: list[str] = []
        self._rows: list[list[Cell]] = []
        #: pieces of the cell, or of the caption, that is open
        self._open: list[str] | None = None
        self._cell = Cell("")
        self._in_head = False
        #: tables within a cell of this one: their cells become lines of it
        self._depth = 0

    @property
    def takes_text(self) -> bool:
        """Whether a cell is open: text that stands in none is not the table's."""
        return self._open is not None

    def text(self, text: str) -> None:
        if self._open is not None:
            self._open.append(text)

    def tag(self, name: str, *, closing: bool, attributes: str) -> bool:
        """Take a tag; return whether the table goes on."""
        if name == "table":
            if closing:
                self._depth -= 1
            elif self._open is not None:
                self._depth += 1
            return self._depth >= 0
        if self._depth:
            self.text("\n")
        elif name in {"td", "th", "caption"}:
            self._close()
            if not closing:
                self._begin(name, attributes)
        else:
            self._close()
            if name == "thead":
                self._in_head = not closing
            elif name == "tr" and not closing:
                self._rows.append([])
        return True

    def end(self) -> Table | None:
        """Return the table; None when it has no cell."""
        self._close()
        rows = tuple(_without_empty(self._rows))
        return Table(rows, " ".join(_tidy(self._caption).split())) if rows else None

    def leftover(self) -> str:
        """Return the caption of a table that has no cell."""
        return _tidy(self._caption)

    def _begin(self, name: str, attributes: str) -> None:
        if name == "caption":
            self._open = self._caption
            return
        spans = {match[1].lower(): min(int(match[2]) or 1, _MOST_SPANNED) for match in _SPAN.finditer(attributes)}
        self._cell = Cell(
            "", heading=name == "th" or self._in_head, columns=spans.get("col", 1), rows=spans.get("row", 1)
        )
        self._open = []

    def _close(self) -> None:
        if self._open is not None and self._open is not self._caption:
            if not self._rows:
                self._rows.append([])
            cell = self._cell
            text = _STRONG.sub(r"\1", _tidy(self._open))
            self._rows[-1].append(Cell(text, cell.heading, cell.columns, cell.rows))
        self._open = None


def _without_empty(rows: list[list[Cell]]) -> Iterator[tuple[Cell, ...]]:
    """Yield the rows but for those without a cell, unless a cell above reaches into them: its place must be kept."""
    reach = 0
    for row in rows:
        if row or reach > 0:
            yield tuple(row)
        reach = max([reach, *(cell.rows for cell in row)]) - 1


def _tidy(pieces: list[str]) -> str:
    """Return a cell's text: plain, its lines stripped, none of them empty."""
    lines = (" ".join(line.split()) for line in unescape("".join(pieces)).split("\n"))
    return "\n".join(line for line in lines if line)


def is_delimiter(line: str) -> bool:
    """Say whether a line stands between the head and the body of a table of pipes."""
    return "|" in line and _DELIMITER.fullmatch(line) is not None


def from_pipes(lines: list[str], fill: Callable[[str], str]) -> Table:
    """Return the table whose head, delimiter and other lines these are. `fill` puts formulas in the place of their marks."""
    head, _, *body = lines
    rows = [
        tuple(Cell(" ".join(plain(fill(text)).split()), heading=number == 0) for text in _cells(line))
        for number, line in enumerate([head, *body])
    ]
    return Table(tuple(rows))


def _cells(line: str) -> list[str]:
    line = line.strip().removeprefix("|")
    ends = [match.start() for match in _PIPES.finditer(line) if match[0] == "|"]
    starts = [0, *(end + 1 for end in ends)]
    texts = [line[start:end] for start, end in zip(starts, [*ends, len(line)], strict=True)]
    return texts[:-1] if len(texts) > 1 and not texts[-1].strip() else texts


def part_at_empty_line(text: str) -> tuple[str, str | None]:
    """Return what stands before the first empty line, and what stands behind it."""
    match = _EMPTY_LINES.search(text)
    return (text[: match.start()], text[match.end() :]) if match else (text, None)
