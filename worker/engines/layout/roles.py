"""The role of a paragraph: heading, list, caption, footnote or text; by its words, its position and its size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ocrfleet.records.pages import Role
from worker.engines.layout.geometry import Box, around, covers, height

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ocrfleet.records.pages import Line
    from worker.engines.layout.reading_order import Row
    from worker.engines.layout.regions import Region

#: The most characters of a heading, its fewest letters, and the most rows of a heading that is recognised by size alone.
_LONGEST_HEADING, _FEWEST_LETTERS, _MOST_ROWS = 200, 3, 4
#: A row is part of a heading if a title region of the layout model covers this share of each of its lines; …
_SEEN = 0.4
#: … or if it is this many times as high as the page's text, and as the rows around it in its paragraph. Two neighbouring boxes
#: of an engine may differ by a third; font sizes are exact.
_LARGE, _LARGER = 1.45, 1.2
_LARGE_FONT = 1.12
#: A page's title is this many times as high as its text, and this many times as high as its other headings.
_TITLE, _TITLE_AMONG = 1.5, 1.15
#: A footnote is at most this share of the text's size, and below this share of the page's height.
_SMALL, _FOOT = 0.93, 0.55
#: A caption is at most this far from its table or figure, in line heights.
_NEAR = 2.5
#: The next or the previous number of an item is searched for in so many rows.
_ITEMS_APART = 14

_CAPTION = re.compile(
    r"(?:fig(?:ure|\.)?|table|tab\.|plate|abb(?:ildung|\.)|tabelle|tafel|tableau|planche|figura|tabla|tavola|chart|exhibit)"
    r"\s*(?:[0-9]+[0-9.]*|[IVXLC]+\b)\s*([:.|\u2013\u2014-]|$)?",
    re.IGNORECASE,
)
_BULLET = re.compile("([\u2022\u25e6\u25aa\u25ab\u2023\u25cf\u25cb\u25a0\u25a1\u00b7*\u2013-])\\s+(?=\\S)")
_NUMBERED = re.compile(r"\(?([0-9]{1,3})[.)]\s+(?=\S)")
_LETTERED = re.compile(r"\(?([a-z])[.)]\s+(?=\S)", re.IGNORECASE)
_NOTE = re.compile(
    "([*\u2020\u2021\u00a7]|[\u00b9\u00b2\u00b3\u2070-\u2079]+|\\(?[0-9]{1,2}[.)]?)\\s*(?=[^\\W\\d_]|[\"'\u201c\u201e(])"
)
_SIGNED = re.compile("[*\u2020\u2021\u00a7\u00b9\u00b2\u00b3\u2070-\u2079]")


class Font(NamedTuple):
    """The font of a line in a PDF's text layer."""

    #: of its font, in points
    size: float
    bold: bool = False


class ListMarker(NamedTuple):
    """The marker of a list item: its kind, its number, and its length in characters."""

    kind: str
    number: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Properties of a page that decide the roles of its paragraphs."""

    #: the usual height of a line of its text, in pixels, or size of its font, in points
    usual: float
    page_height: int
    regions: Sequence[Region] = ()
    #: of tables and figures
    floats: Sequence[Box] = ()
    styles: Mapping[Box, Font] | None = None

    def size(self, row: Row) -> float:
        if self.styles is None:
            return float(np.mean([height(line.box) for line in row]))
        return max((self.styles[line.box].size for line in row if line.box in self.styles), default=self.usual)

    def bold(self, row: Row) -> bool:
        styles = self.styles or {}
        return bool(row) and all(line.box in styles and styles[line.box].bold for line in row)

    def seen(self, row: Row, *labels: str) -> bool:
        boxes = [region.box for region in self.regions if region.label in labels]
        return bool(boxes) and all(any(covers(box, line.box, _SEEN) for box in boxes) for line in row)


def text_of(row: Row) -> str:
    return " ".join(line.text for line in row)


def parted(rows: Sequence[Row], setting: Setting) -> list[tuple[Role, list[Row]]]:
    """Split a paragraph into headings and the rest, which is text, a caption or a footnote as a whole."""
    large = _large_beginning(rows, setting)
    parts: list[tuple[Role, list[Row]]] = []
    for number, row in enumerate(rows):
        heading = _may_be_heading(row) and (
            number < large or setting.seen(row, "title") or _is_bold_alone(rows, number, setting)
        )
        role = Role.HEADING if heading else Role.TEXT
        alike = bool(parts) and (role is Role.TEXT or _are_alike(rows[number - 1], row, setting))
        if parts and parts[-1][0] is role and alike:
            parts[-1][1].append(row)
        else:
            parts.append((role, [row]))
    return [(_of_text(part, setting) if role is Role.TEXT else role, part) for role, part in parts]


def _may_be_heading(row: Row) -> bool:
    text = text_of(row)
    return len(text) <= _LONGEST_HEADING and sum(map(str.isalpha, text)) >= _FEWEST_LETTERS


def _large_beginning(rows: Sequence[Row], setting: Setting) -> int:
    """Return how many rows at a paragraph's beginning are a heading by size alone: few rows, much larger than the rest."""
    sizes = [setting.size(row) for row in rows]
    large = _LARGE_FONT if setting.styles is not None else _LARGE
    count = next((number for number, size in enumerate(sizes) if size < large * setting.usual), len(sizes))
    if not 0 < count <= _MOST_ROWS or not text_of(rows[0])[:1].isalnum() or text_of(rows[0])[:1].islower():
        return 0
    return (
        count
        if all(min(sizes[:count]) > (_LARGER if setting.styles is None else 1) * size for size in sizes[count:])
        else 0
    )


def _is_bold_alone(rows: Sequence[Row], number: int, setting: Setting) -> bool:
    """Say whether a row is a heading because it is bold, its neighbours are not, and it is no sentence."""
    if not setting.bold(rows[number]) or text_of(rows[number]).endswith((".", ",", ";", ":")):
        return False
    return not any(setting.bold(rows[other]) for other in (number - 1, number + 1) if 0 <= other < len(rows)) or (
        len(rows) <= _MOST_ROWS and all(map(setting.bold, rows))
    )


def _are_alike(row: Row, other: Row, setting: Setting) -> bool:
    """Say whether two rows have the same size, like those of one heading."""
    sizes = setting.size(row), setting.size(other)
    in_one = any(
        region.label == "title" and all(covers(region.box, line.box, _SEEN) for line in (*row, *other))
        for region in setting.regions
    )
    return in_one or max(sizes) < _LARGER * min(sizes)


def _of_text(rows: Sequence[Row], setting: Setting) -> Role:
    text = text_of(rows[0])
    caption = _CAPTION.match(text)
    if caption and (caption[1] is not None or _is_near_float(rows, setting)):
        return Role.CAPTION
    if all(setting.seen(row, "figure_caption", "table_caption") for row in rows) and _is_near_float(rows, setting):
        return Role.CAPTION
    small = np.median([setting.size(row) for row in rows]) < _SMALL * setting.usual
    low = around(line.box for line in rows[0])[1] > _FOOT * setting.page_height
    note = _NOTE.match(text)
    return Role.FOOTNOTE if low and note and (small or _SIGNED.match(text)) else Role.TEXT


def _is_near_float(rows: Sequence[Row], setting: Setting) -> bool:
    x0, y0, x1, y1 = around(line.box for row in rows for line in row)
    reach = _NEAR * (y1 - y0) / len(rows)
    return any(
        left < x1 and x0 < right and top - reach < y1 and y0 < bottom + reach
        for left, top, right, bottom in setting.floats
    )


def title_among(headings: Sequence[tuple[float, Box]], setting: Setting) -> int | None:
    """Return the index of the page's title among its headings, given by size and box; None if no heading stands out."""
    if not headings:
        return None
    sizes = [size for size, _ in headings]
    best = int(np.argmax(sizes))
    others = [size for number, size in enumerate(sizes) if number != best]
    stands_out = sizes[best] >= _TITLE * setting.usual and all(sizes[best] >= _TITLE_AMONG * size for size in others)
    return best if stands_out and headings[best][1][1] < setting.page_height / 2 else None


def marker(text: str) -> ListMarker | None:
    """Return the list marker at the beginning of a line; None without one."""
    if found := _BULLET.match(text):
        return ListMarker(found[1], 0, found.end())
    if found := _NUMBERED.match(text):
        return ListMarker("1", int(found[1]), found.end())
    if found := _LETTERED.match(text):
        return ListMarker("a" if found[1].islower() else "A", ord(found[1].lower()) - ord("a"), found.end())
    return None


def items(rows: Sequence[Line | None]) -> list[ListMarker | None]:
    """Return the markers of the rows, given by their first lines in reading order, that begin an item of a list.

    One bullet or one number makes no list: the next or the previous of its kind must be near. None in `rows` separates lists.
    """
    found = [None if line is None else marker(line.text) for line in rows]
    real: list[ListMarker | None] = []
    for place, here in enumerate(found):
        near = found[max(0, place - _ITEMS_APART) : place] + found[place + 1 : place + 1 + _ITEMS_APART]
        follows = here is not None and any(
            other is not None
            and other.kind == here.kind
            and (abs(other.number - here.number) == 1 or not (here.number or here.kind in "1aA"))
            for other in near
        )
        real.append(here if follows else None)
    return real
