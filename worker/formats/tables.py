"""Parse a model's tables, in HTML or with pipes, into rows of cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ocrfleet.markdown import latex
from worker.formats.elements import Cell, Table
from worker.formats.inline import plain, unescape

#: Tags of a table, the only HTML in the output.
TAGS = frozenset({"table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption"})

#: Columns or rows that a cell may span: nearly HTML's own limit. Larger numbers are mistakes of a model.
_MOST_SPANNED = 999
_SPAN = re.compile(r"\b(row|col)span\s*+=\s*+[\"']?+([0-9]{1,3})(?![0-9])", re.IGNORECASE)
_STRONG = re.compile(r"\*\*([^*]++)\*\*")
_EMPTY_LINES = re.compile(r"\n[ \t]*+\n\s*+")

_DELIMITER = re.compile(r"\|?[ \t]*+:?-++:?[ \t]*+(?:\|[ \t]*+:?-++:?[ \t]*+)*+\|?")
#: what parts cells of a line; an escaped pipe doesn't
_PIPES = re.compile(r"\\.|\|")


class TableReader:
    """Builds one table from its tags and texts, in any order. Missing and surplus tags are repaired."""

    def __init__(self) -> None:
        self._caption: list[str] = []
        self._rows: list[list[Cell]] = []
        #: texts of the open cell or caption
        self._open: list[str] | None = None
        self._cell = Cell("")
        self._in_head = False
        #: depth of nested tables within a cell; their cells become lines of that cell
        self._depth = 0

    @property
    def takes_text(self) -> bool:
        """Whether a cell is open. Text outside of cells does not belong to the table."""
        return self._open is not None

    def text(self, text: str) -> None:
        if self._open is not None:
            self._open.append(text)

    def tag(self, name: str, *, closing: bool, attributes: str) -> bool:
        """Process a tag. Return whether the table goes on."""
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
        """Return the table; None if it has no cell."""
        self._close()
        rows = tuple(_without_empty(self._rows))
        return Table(rows, latex.shown(" ".join(_tidy(self._caption).split()), markdown=False)) if rows else None

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
            text = latex.shown(_STRONG.sub(r"\1", _tidy(self._open)), markdown=False)
            self._rows[-1].append(Cell(text, cell.heading, cell.columns, cell.rows))
        self._open = None


def _without_empty(rows: list[list[Cell]]) -> Iterator[tuple[Cell, ...]]:
    """Yield the rows, except those without a cell that no cell above spans."""
    reach = 0
    for row in rows:
        if row or reach > 0:
            yield tuple(row)
        reach = max([reach, *(cell.rows for cell in row)]) - 1


def _tidy(pieces: list[str]) -> str:
    """Return a cell's plain text, with stripped lines and without empty ones."""
    lines = (" ".join(line.split()) for line in unescape("".join(pieces)).split("\n"))
    return "\n".join(line for line in lines if line)


def is_delimiter(line: str) -> bool:
    """Return whether a line is the delimiter row of a pipe table."""
    return "|" in line and _DELIMITER.fullmatch(line) is not None


def from_pipes(lines: list[str], fill: Callable[[str], str]) -> Table:
    """Parse a pipe table from its head, delimiter and body lines. `fill` replaces marks by their formulas."""
    head, _, *body = lines
    rows = [
        tuple(
            Cell(" ".join(latex.shown(plain(fill(text)), markdown=False).split()), heading=number == 0)
            for text in _cells(line)
        )
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
    """Return the lines before the first empty one, and those after it."""
    match = _EMPTY_LINES.search(text)
    return (text[: match.start()], text[match.end() :]) if match else (text, None)
