"""What a page says, as elements and figures in reading order: shared by the formats that people read.

They show the same as the Markdown: running heads, feet and page numbers only on a page that has nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ocrfleet.markdown.escape import escape_inline
from ocrfleet.records.documents import Problem
from ocrfleet.records.pages import PageResult, PageStatus
from worker.formats.blocks import read
from worker.formats.elements import Element, Item, Paragraph
from worker.formats.page_text import ASIDE, captions, elements

#: Characters that do something unseen to a text instead of standing in it: controls but tab and line feed, and Unicode's
#: controls of direction. A page's own right-to-left letters need none.
_UNSEEN = dict.fromkeys(
    (
        *range(0x09),
        *range(0x0B, 0x20),
        *range(0x7F, 0xA0),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        # no characters, by Unicode or by XML
        *range(0xD800, 0xE000),
        *range(0xFDD0, 0xFDF0),
        *(0xFEFF, 0xFFFE, 0xFFFF),
    )
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture on the page, by its name in the store; `caption` stands near it, or is empty."""

    name: str
    caption: str


def visible(text: str) -> str:
    """Return a text without control characters; XML and terminals take the rest as it is."""
    return text.translate(_UNSEEN)


def content(result: PageResult) -> Iterator[Element | Figure]:
    """Yield the elements and figures of a page in reading order; of plain text, its paragraphs."""
    found: list[Element | Figure] = []
    aside: list[Element | Figure] = []
    alternatives = captions(result.blocks)
    for index, block in enumerate(result.blocks):
        if block.figure is not None:
            found.append(Figure(block.figure, alternatives.get(index, "")))
        (aside if block.role in ASIDE else found).extend(elements(block))
    found = found or aside
    if found or not result.text:
        yield from found
    elif result.markdown:
        yield from read(result.text)
    else:
        yield from _paragraphs(result.text)


def _paragraphs(text: str) -> Iterator[Paragraph]:
    """Yield plain text as paragraphs, which empty lines part; what Markdown would take for marks is escaped."""
    lines: list[str] = []
    for line in (*text.splitlines(), ""):
        if line.strip():
            lines.append(escape_inline(line.strip()))
        elif lines:
            yield Paragraph(tuple(lines))
            lines = []


def text_of(result: PageResult) -> str:
    """Return a page's plain text: empty lines between paragraphs, a line for each row of a table, tabs between its cells."""
    if not result.blocks and not result.markdown:
        return visible(result.text)
    pieces: list[str] = []
    before: Element | None = None
    for part in content(result):
        words = "" if isinstance(part, Figure) else part.plain()
        if words and not isinstance(part, Figure):
            if before is not None:
                pieces.append("\n" if isinstance(part, Item) and isinstance(before, Item) else "\n\n")
            pieces.append(words)
            before = part
    return visible("".join(pieces))


def notice(result: PageResult) -> str:
    """Return what a reader should know of a page that is not done; nothing for one that is."""
    if result.status is not PageStatus.FAILED:
        return ""
    what = f"The text of page {result.page} can't be trusted" if result.text else f"Page {result.page} is missing"
    return visible(f"{what}: {' '.join((result.detail or '').split()) or result.reason}")


def problem_notice(problem: Problem) -> str:
    """Return why a document has no pages."""
    return visible(f"This document could not be read: {' '.join(problem.detail.split())}")
