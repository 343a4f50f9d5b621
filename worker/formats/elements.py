"""The elements of parsed Markdown, each with its Markdown and its plain text.

Their texts are cleaned Markdown (worker/formats/inline.py), except in cells, formulas and code.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from ocrfleet.markdown.escape import escape_start
from worker.formats.inline import plain


@dataclass(frozen=True, slots=True)
class Heading:
    level: int
    text: str

    def markdown(self) -> str:
        return f"{'#' * self.level} {self.text}"

    def plain(self) -> str:
        return plain(self.text)


@dataclass(frozen=True, slots=True)
class Paragraph:
    lines: tuple[str, ...]

    def markdown(self) -> str:
        return "\n".join(map(escape_start, self.lines))

    def plain(self) -> str:
        return plain("\n".join(self.lines))


@dataclass(frozen=True, slots=True)
class Quote:
    lines: tuple[str, ...]

    def markdown(self) -> str:
        return "\n".join(f"> {escape_start(line)}" for line in self.lines)

    def plain(self) -> str:
        return plain("\n".join(self.lines))


@dataclass(frozen=True, slots=True)
class Item:
    """A list item. `marker` is a dash, or a number with its delimiter; `indent` is in columns."""

    indent: int
    marker: str
    lines: tuple[str, ...]

    def markdown(self) -> str:
        first, *rest = map(escape_start, self.lines)
        margin = " " * self.indent
        below = margin + " " * (len(self.marker) + 1)
        return "\n".join([f"{margin}{self.marker} {first}", *(below + line for line in rest)])

    def plain(self) -> str:
        return f"{self.marker} {plain(chr(10).join(self.lines))}"


@dataclass(frozen=True, slots=True)
class Rule:
    def markdown(self) -> str:
        return "---"

    def plain(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Code:
    language: str
    lines: tuple[str, ...]

    def markdown(self) -> str:
        longest = max((len(run) for line in self.lines for run in re.findall("`+", line)), default=0)
        fence = "`" * max(3, longest + 1)
        return "\n".join([fence + self.language, *self.lines, fence])

    def plain(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True, slots=True)
class Formula:
    """A displayed formula. `tex` is one line of LaTeX that does not begin like a list item or a heading."""

    tex: str

    def markdown(self) -> str:
        return f"$${self.tex}$$"

    def plain(self) -> str:
        return self.tex


@dataclass(frozen=True, slots=True)
class Cell:
    #: plain, with formulas between dollars; may have several lines
    text: str
    heading: bool = False
    columns: int = 1
    rows: int = 1

    def markdown(self) -> str:
        tag = "th" if self.heading else "td"
        spans = f' rowspan="{self.rows}"' * (self.rows > 1) + f' colspan="{self.columns}"' * (self.columns > 1)
        return f"<{tag}{spans}>{_html(self.text)}</{tag}>"


@dataclass(frozen=True, slots=True)
class Table:
    """A table as HTML, one row a line. It has no empty line, which would end it: ocrfleet/markdown/style.py relies on that."""

    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def markdown(self) -> str:
        caption = [f"<caption>{_html(self.caption)}</caption>"] if self.caption else []
        rows = ("<tr>" + "".join(cell.markdown() for cell in row) + "</tr>" for row in self.rows)
        return "\n".join(["<table>", *caption, *rows, "</table>"])

    def plain(self) -> str:
        rows = ["\t".join(" ".join(cell.text.split()) for cell in row) for row in self.rows]
        return "\n".join([self.caption, *rows] if self.caption else rows)


Element = Heading | Paragraph | Quote | Item | Rule | Code | Formula | Table


def _html(text: str) -> str:
    return html.escape(text, quote=False).replace("\n", "<br>")


def to_markdown(elements: list[Element]) -> str:
    """Return the elements as CommonMark, separated by empty lines except between the items of a list."""
    pieces: list[str] = []
    before: Element | None = None
    for element in elements:
        if before is not None:
            pieces.append("\n" if isinstance(element, Item) and isinstance(before, Item) else "\n\n")
        pieces.append(element.markdown())
        before = element
    return "".join(pieces)


def to_plain(elements: list[Element]) -> str:
    """Return the elements as plain text. Tables have a line for each row, and tabs between cells."""
    return "\n".join(text for text in (element.plain() for element in elements) if text)
