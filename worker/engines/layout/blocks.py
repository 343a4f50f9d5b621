"""Arranges lines into a page's blocks: order, tables, figures, headings, lists, captions, footnotes, running heads.

For engines that return lines only, and for a PDF's text layer. The blocks have what a model with a layout stage returns: a
role, boxes, and Markdown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ocrfleet.records.pages import Line, Role
from worker.engines.layout import numbering, regions, roles, rules, running_heads, tables
from worker.engines.layout.geometry import Box, around, covers, height, width
from worker.engines.layout.parts import (
    ArrangedPage,
    Part,
    in_margin,
    lines_of,
    plain_text,
    to_block,
    with_lists,
    with_title,
    words_of,
)
from worker.engines.layout.reading_order import ColumnHints
from worker.engines.layout.roles import Font, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from worker.engines.layout.parts import LineWords
    from worker.engines.layout.reading_order import Paragraph, Row
    from worker.engines.layout.regions import Region

#: The lowest score of a region that becomes a table or a figure.
_SURE = 0.5
#: A figure has little text in it: at most this share of its area, in lines of at most so many characters; and it covers at
#: most this share of the page.
_MOST_TEXT, _LONGEST_LABEL, _LARGEST_FIGURE = 0.12, 40, 0.8
#: Rows become a table without a region of the layout model if at least so many have several pieces, this share of the pieces
#: are numbers, …
_FEWEST_ROWS, _NUMBERS = 3, 0.4
#: … and the pieces are narrow, in line heights; a row of one piece that is wider than the second number is text.
_NARROW, _WIDE = 8.0, 14.0
#: The largest gap between two rows of a table, in line heights; and the most rows of one piece in succession.
_GAP, _SINGLES = 2.5, 2
#: A heading over a table is at most this far from it, in line heights, and narrower than this share of it.
_NEAR, _OVER = 1.2, 0.6
#: The part of a line's height in which letters are: a rule found there is part of a letter.
_LETTERS = 0.25, 0.8


def arrange(
    lines: Sequence[Line],
    pixels: NDArray[np.uint8],
    *,
    angle: float = 0.0,
    insets: Sequence[tuple[Box, ArrangedPage]] = (),
    words: LineWords | None = None,
) -> ArrangedPage:
    """Arrange lines, in any order, into a page. Each line is in one block.

    `pixels` is the page image, RGB, shape (height, width, 3); the lines' boxes are in its pixels. `angle` is the page's
    skew in degrees, positive when lines sink to the right. `insets` are parts of the page that were arranged on their own,
    such as a table that lies sideways, with their boxes. `words` are those of lines, where they are known.
    """
    layout = _Layout(lines, pixels, insets=insets, words=words)
    return layout.page(lambda body, hints: numbering.order(body, angle=angle, hints=hints))


def arrange_in_order(
    paragraphs: Sequence[Paragraph],
    pixels: NDArray[np.uint8],
    *,
    styles: Mapping[Box, Font] | None = None,
    words: LineWords | None = None,
) -> ArrangedPage:
    """Arrange paragraphs into a page like `arrange`, but keep their order.

    `styles` are the fonts of the lines, by their boxes, where they are known.
    """
    lines = [line for rows in paragraphs for row in rows for line in row]
    return _Layout(lines, pixels, styles, words=words).page(lambda body, _: _in_order(paragraphs, body))


class _Layout:
    def __init__(
        self,
        lines: Sequence[Line],
        pixels: NDArray[np.uint8],
        styles: Mapping[Box, Font] | None = None,
        insets: Sequence[tuple[Box, ArrangedPage]] = (),
        words: LineWords | None = None,
    ) -> None:
        self._words = words or {}
        self._height, self._width = pixels.shape[:2]
        self._styles = styles
        self._lines = sorted(lines, key=lambda line: line.box)
        self._unit = max(float(np.median([height(line.box) for line in lines])), 1.0) if lines else 1.0
        self._regions = regions.find(pixels)
        found = rules.find(pixels)
        self._across = [rule for rule in found.across if not any(_strikes(rule, line.box) for line in lines)]
        self._down = found.down
        #: Tables and figures, each with the empty line that represents it in the reading order, by that line's identity.
        self._floats: dict[int, tuple[Line, Part]] = {}
        self._insets = [self._float(Part(Role.FIGURE, [], inset=page), box) for box, page in insets]

    def page(self, order: Callable[[list[Line], ColumnHints], list[Paragraph]]) -> ArrangedPage:
        aside = running_heads.find(self._lines, self._regions, page_width=self._width)
        body = [line for index, line in enumerate(self._lines) if index not in aside]
        body = self._without_figures(self._without_tables([*body, *self._insets]))
        hints = ColumnHints(
            across=self._across,
            down=self._down,
            regions=[region.box for region in self._regions if region.label in {"text", "reference"}],
        )
        paragraphs = self._with_tables(order(body, hints))
        setting = self._setting(paragraphs)
        parts = [part for rows in paragraphs for part in self._parts(rows, setting)]
        parts = with_title(with_lists(parts), setting)
        asides = [(self._lines[index], role) for index, role in aside.items()]
        upper = [self._is_upper(line, role) for line, role in asides]
        parts = [
            *in_margin([aside for aside, high in zip(asides, upper, strict=True) if high]),
            *parts,
            *in_margin([aside for aside, high in zip(asides, upper, strict=True) if not high]),
        ]
        return ArrangedPage(
            lines=tuple(line for part in parts for line in lines_of(part)),
            blocks=tuple(block for part in parts for block in (part.inset.blocks if part.inset else (to_block(part),))),
            text="\n\n".join(text for part in parts if (text := part.inset.text if part.inset else plain_text(part))),
            words=tuple(words_of(parts, self._words)),
        )

    def _is_upper(self, line: Line, role: Role) -> bool:
        return role is Role.HEADER or (role is Role.PAGE_NUMBER and line.box[1] < self._height / 2)

    def _float(self, part: Part, box: Box) -> Line:
        part.box = box
        line = Line(text="", box=box)
        self._floats[id(line)] = line, part
        return line

    def _without_tables(self, body: list[Line]) -> list[Line]:
        """Replace the lines of each table that the layout model found by the table."""
        for region in self._seen("table"):
            inside = [line for line in body if id(line) not in self._floats and covers(region.box, line.box)]
            if not inside or not tables.looks_like_table(inside):
                continue
            inside = self._grown(inside, body)
            html = tables.to_html(inside, self._across)
            if html is not None:
                taken = {id(line) for line in inside}
                table = self._float(
                    Part(Role.TABLE, tables.rows_of(inside), html=html), around(line.box for line in inside)
                )
                body = [*(line for line in body if id(line) not in taken), table]
        return body

    def _without_figures(self, body: list[Line]) -> list[Line]:
        for region in self._seen("figure"):
            inside = [line for line in body if covers(region.box, line.box)]
            area = width(region.box) * height(region.box)
            text = sum(width(line.box) * height(line.box) for line in inside)
            if (
                text > _MOST_TEXT * area
                or area > _LARGEST_FIGURE * self._width * self._height
                or any(id(line) in self._floats or len(line.text) > _LONGEST_LABEL for line in inside)
                or any(covers(box, region.box) or covers(region.box, box) for box in self._float_boxes())
            ):
                continue
            taken = {id(line) for line in inside}
            figure = self._float(Part(Role.FIGURE, tables.rows_of(inside) if inside else []), region.box)
            body = [*(line for line in body if id(line) not in taken), figure]
        return body

    def _float_boxes(self) -> list[Box]:
        return [line.box for line, _ in self._floats.values()]

    def _seen(self, label: str) -> list[Region]:
        return [region for region in self._regions if region.label == label and region.score >= _SURE]

    def _grown(self, inside: list[Line], body: Sequence[Line]) -> list[Line]:
        """Return a table's lines and the rows directly above and below that align with it: the model often omits heads."""
        unit = float(np.median([height(line.box) for line in inside]))
        while True:
            x0, y0, x1, y1 = around(line.box for line in inside)
            have = {id(line) for line in inside}
            level = [
                line
                for line in body
                if id(line) not in have
                and id(line) not in self._floats
                and line.box[0] >= x0 - _NEAR * unit
                and line.box[2] <= x1 + _NEAR * unit
                and width(line.box) < _OVER * (x1 - x0)
            ]
            above = [line for line in level if line.box[1] < y0 and abs(y0 - line.box[3]) < _NEAR * unit]
            below = [line for line in level if line.box[3] > y1 and abs(line.box[1] - y1) < _NEAR * unit]
            more = [line for lines in (above, below) if len(lines) > 1 for line in lines]
            if not more:
                return inside
            inside = [*inside, *more]

    def _with_tables(self, paragraphs: Sequence[Paragraph]) -> list[Paragraph]:
        """Replace rows that form a table which the layout model missed: several pieces each, mostly numbers."""
        parted = [[part for row in paragraph for part in self._without_floats(row)] for paragraph in paragraphs]
        rows = [row for paragraph in parted for row in paragraph]
        begins = [number == 0 for paragraph in parted for number in range(len(paragraph))]
        found: list[Paragraph] = []
        place, fresh = 0, True
        while place < len(rows):
            end = self._end_of_table(rows, place)
            table = self._table(rows[place:end], found) if end > place else None
            if table is not None:
                found.append([[table]])
                place, fresh = end, True
                continue
            if fresh or begins[place] or self._is_float(rows[place]):
                found.append([rows[place]])
            else:
                found[-1].append(rows[place])
            fresh = self._is_float(rows[place])
            place += 1
        return [paragraph for paragraph in found if paragraph]

    def _without_floats(self, row: Row) -> list[Row]:
        """Split a row at its tables and figures."""
        parts: list[Row] = []
        for line in row:
            if parts and not self._is_float([line]) and not self._is_float(parts[-1]):
                parts[-1].append(line)
            else:
                parts.append([line])
        return parts

    def _is_float(self, row: Row) -> bool:
        return any(id(line) in self._floats for line in row)

    def _end_of_table(self, rows: Sequence[Row], place: int) -> int:
        """Return the end of the table that begins at row `place`; `place` itself if none begins there."""
        end, last = place, None
        for number in range(place, len(rows)):
            row = rows[number]
            box = around(line.box for line in row)
            if self._is_float(row) or (last is not None and not last[1] < box[1] < last[3] + _GAP * self._unit):
                break
            if len(row) > 1:
                end = number + 1
            elif number == place or width(box) > _WIDE * self._unit or number - end >= _SINGLES:
                break
            last = box
        several = [row for row in rows[place:end] if len(row) > 1]
        cells = [line for row in several for line in row[1:]]
        if len(several) < _FEWEST_ROWS:
            return place
        numbers = sum(tables.is_numeric(line.text) for line in cells)
        narrow = float(np.median([width(line.box) for line in cells])) < _NARROW * self._unit
        return end if narrow and numbers >= _NUMBERS * len(cells) else place

    def _table(self, rows: Sequence[Row], before: list[Paragraph]) -> Line | None:
        """Make a table of rows and return its line. Its headings, alone in their rows, are taken from the paragraph `before`."""
        cells = [line for row in rows for line in row]
        heads: list[Row] = []
        rest = [row for paragraph in before[-1:] for row in paragraph]
        while rest and not self._is_float(rest[-1]) and self._is_over(rest[-1], cells):
            heads.append(rest.pop())
            cells = [*heads[-1], *cells]
        html = tables.to_html(cells, self._across)
        if html is None:
            return None
        if heads:
            del before[-1][len(rest) :]
        return self._float(Part(Role.TABLE, tables.rows_of(cells), html=html), around(line.box for line in cells))

    def _is_over(self, row: Row, cells: Sequence[Line]) -> bool:
        """Say whether a row is a heading over the table's columns after the first."""
        x0, y0, x1, _ = around(line.box for line in cells)
        left, _, right, bottom = around(line.box for line in row)
        first = min(cells, key=lambda line: line.box[0])
        over = first.box[2] < left and right <= x1 + self._unit and right - left < _OVER * (x1 - x0)
        return over and abs(y0 - bottom) < _NEAR * self._unit

    def _setting(self, paragraphs: Sequence[Paragraph]) -> Setting:
        """Return what roles are decided by: above all the size in which most of the page's text is set."""
        lines = [line for rows in paragraphs for row in rows for line in row if id(line) not in self._floats]
        styles = self._styles
        sizes = [styles[line.box].size if styles and line.box in styles else height(line.box) for line in lines]
        letters = [len(line.text) for line in lines]
        return Setting(
            usual=_weighted_median(sizes, letters) if lines else self._unit,
            page_height=self._height,
            regions=self._without_titles(lines),
            floats=self._float_boxes(),
            styles=styles,
        )

    def _without_titles(self, lines: Sequence[Line]) -> Sequence[Region]:
        """Return the regions, without titles if these cover most of the text: then they are no headings."""
        titles = [region.box for region in self._regions if region.label == "title"]
        headed = sum(len(line.text) for line in lines if any(covers(box, line.box) for box in titles))
        if 2 * headed <= sum(len(line.text) for line in lines):
            return self._regions
        return [region for region in self._regions if region.label != "title"]

    def _parts(self, rows: Paragraph, setting: Setting) -> list[Part]:
        if self._is_float(rows[0]):
            return [self._floats[id(rows[0][0])][1]]
        return [Part(role, part) for role, part in roles.parted(rows, setting)]


def _in_order(paragraphs: Sequence[Paragraph], body: Sequence[Line]) -> list[Paragraph]:
    """Return the paragraphs' lines that are in `body`. Tables and figures come before the first line below them."""
    left = {id(line) for line in body}
    given = {id(line) for rows in paragraphs for row in rows for line in row}
    floats = sorted((line for line in body if id(line) not in given), key=lambda line: line.box[1], reverse=True)
    found: list[Paragraph] = []
    for rows in paragraphs:
        kept = [kept for row in rows if (kept := [line for line in row if id(line) in left])]
        if not kept:
            continue
        x0, y0, x1, _ = around(line.box for line in kept[0])
        while floats and floats[-1].box[1] <= y0 and floats[-1].box[0] < x1 and x0 < floats[-1].box[2]:
            found.append([[floats.pop()]])
        found.append(kept)
    return [*found, *([[line]] for line in reversed(floats))]


def _strikes(rule: Box, line: Box) -> bool:
    """Say whether a rule crosses a line's letters: then it is part of a letter."""
    x, y = (rule[0] + rule[2]) / 2, (rule[1] + rule[3]) / 2
    first, last = (line[1] + part * height(line) for part in _LETTERS)
    return line[0] < x < line[2] and first < y < last


def _weighted_median(values: Sequence[float], weights: Sequence[int]) -> float:
    order = np.argsort(values)
    sums = np.cumsum(np.array(weights)[order])
    return float(np.array(values)[order][np.searchsorted(sums, sums[-1] / 2)])
