"""Parts of a page: what becomes a block, with its role, its place, its Markdown and its lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ocrfleet.markdown.escape import escape
from ocrfleet.records.pages import Block, Line, Role, Word
from worker.engines.layout import roles, tables
from worker.engines.layout.geometry import Box, around, height
from worker.engines.layout.roles import Setting, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.engines.layout.reading_order import Row

#: The words of lines; their indices count only within their line.
LineWords = Mapping[Line, Sequence[Word]]


@dataclass(frozen=True, slots=True)
class ArrangedPage:
    """A page's lines and blocks, in reading order."""

    lines: tuple[Line, ...] = ()
    blocks: tuple[Block, ...] = ()
    #: of all blocks, with an empty line between them; a table's rows are lines with tabs between the cells
    text: str = ""
    #: of the lines, in their order; each has the index of its line and of its block
    words: tuple[Word, ...] = ()

    def moved(self, move: Callable[[Box], Box]) -> ArrangedPage:
        """Return the page with `move` applied to all its boxes."""
        return ArrangedPage(
            lines=tuple(line.model_copy(update={"box": move(line.box)}) for line in self.lines),
            blocks=tuple(block.model_copy(update={"boxes": tuple(map(move, block.boxes))}) for block in self.blocks),
            text=self.text,
            words=tuple(word._replace(box=move(word.box)) for word in self.words),
        )


@dataclass(slots=True)
class Part:
    """A block while a page is arranged. `rows` are its lines, or those inside a table or a figure."""

    role: Role
    rows: list[Row]
    box: Box | None = None
    html: str | None = None
    markers: list[roles.ListMarker | None] = field(default_factory=list)
    #: a part of the page that was arranged on its own, such as a table that lies sideways
    inset: ArrangedPage | None = None


def with_title(parts: list[Part], setting: Setting) -> list[Part]:
    """Give the heading that is the title of the page its role."""
    headings = [part for part in parts if part.role is Role.HEADING]
    measured = [
        (
            float(np.mean([setting.size(row) for row in part.rows])),
            around(line.box for row in part.rows for line in row),
        )
        for part in headings
    ]
    title = roles.title_among(measured, setting)
    if title is not None:
        headings[title].role = Role.TITLE
    return parts


def with_lists(parts: list[Part]) -> list[Part]:
    """Turn text with item markers into lists, and join items that follow each other into one list."""
    rows = [(part, row) for part in parts for row in part.rows]
    given = [row[0] if part.role is Role.TEXT else None for part, row in rows]
    markers = iter(roles.items(given))
    found: list[Part] = []
    for part in parts:
        here = [next(markers) for _ in part.rows]
        if part.role is not Role.TEXT:
            found.append(part)
            continue
        first = next((number for number, mark in enumerate(here) if mark), len(here))
        if found and found[-1].role is Role.LIST and _hangs(part.rows[:first], found[-1]):
            first = 0
        if first:
            found.append(Part(Role.TEXT, part.rows[:first]))
        if first < len(here):
            if not found or found[-1].role is not Role.LIST:
                found.append(Part(Role.LIST, []))
            found[-1].rows += part.rows[first:]
            found[-1].markers += here[first:]
    return found


def _hangs(rows: Sequence[Row], items: Part) -> bool:
    """Say whether rows continue the last item of a list: they are below it and indented."""
    start = max(number for number, mark in enumerate(items.markers) if mark)
    line, last = items.rows[start][0], items.rows[-1][0]
    below = bool(rows) and rows[0][0].box[1] > last.box[1]
    return below and all(row[0].box[0] > line.box[0] + height(line.box) / 2 for row in rows)


def in_margin(asides: Sequence[tuple[Line, Role]]) -> list[Part]:
    """Return the running heads or feet as parts, one a line, in the order of their rows."""
    of = {id(line): role for line, role in asides}
    lines = [line for line, _ in asides]
    return [Part(of[id(line)], [[line]]) for row in (tables.rows_of(lines) if lines else []) for line in row]


def lines_of(part: Part) -> Sequence[Line]:
    """Return the lines of a part, in reading order."""
    return part.inset.lines if part.inset else [line for row in part.rows for line in row]


def words_of(parts: Sequence[Part], words: LineWords) -> Iterator[Word]:
    """Yield the words of the parts' lines, with the indices that lines and blocks have in the page."""
    line = block = 0
    for part in parts:
        if part.inset:
            for word in part.inset.words:
                yield word._replace(line=line + word.line, block=block + (word.block or 0))
            line, block = line + len(part.inset.lines), block + len(part.inset.blocks)
            continue
        for own in lines_of(part):
            yield from (word._replace(line=line, block=block) for word in words.get(own, ()))
            line += 1
        block += 1


def plain_text(part: Part) -> str:
    """Return the text of a part, without Markdown."""
    if part.role is Role.TABLE:
        return tables.to_text([line for row in part.rows for line in row])
    return "\n".join(map(text_of, part.rows))


def to_block(part: Part) -> Block:
    """Return the block of a part, with its Markdown."""
    boxes = (part.box,) if part.box else _boxes(part.rows)
    return Block(label=part.role.value, role=part.role, boxes=boxes, markdown=_markdown(part), made=True)


def _markdown(part: Part) -> str:
    if part.html is not None:
        return part.html
    if part.role is Role.LIST:
        return "\n".join(_of_list(text_of(row), mark) for row, mark in zip(part.rows, part.markers, strict=True))
    return "\n".join(escape(text_of(row)) for row in part.rows)


def _of_list(text: str, mark: roles.ListMarker | None) -> str:
    if mark is None:
        return f"  {escape(text)}"
    if mark.kind == "1":
        return f"{mark.number}. {escape(text[mark.length :])}"
    # Markdown has no lists of letters: they stay in the text.
    return f"- {escape(text if mark.kind in {'a', 'A'} else text[mark.length :])}"


def _boxes(rows: Sequence[Row]) -> tuple[Box, ...]:
    """Return the boxes of rows: one for each column that they go through."""
    boxes: list[Box] = []
    for row in rows:
        box = around(line.box for line in row)
        if boxes and box[1] >= boxes[-1][1] and box[0] < boxes[-1][2] and boxes[-1][0] < box[2]:
            boxes[-1] = around((boxes[-1], box))
        else:
            boxes.append(box)
    return tuple(boxes)
