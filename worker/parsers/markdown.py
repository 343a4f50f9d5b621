"""Derive the roles of a page's parts from their Markdown, for models that write no layout."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ocrfleet.records.pages import Block, Role

#: Roles by the beginning of a part. Formulas are delimited by dollar signs or by LaTeX's own delimiters.
_BEGINNINGS = tuple(
    (re.compile(beginning), role)
    for beginning, role in (
        (r"#[ \t]", Role.TITLE),
        (r"#{2,6}[ \t]", Role.HEADING),
        (r"<table\b|\|", Role.TABLE),
        (r"!\[", Role.FIGURE),
        (r"\$\$|\\\[", Role.FORMULA),
        (r"`{3,}+(?=[^`\n]*+(?:\n|\Z))|~{3,}", Role.CODE),
        (r"(?:[-*+]|[0-9]{1,9}[.)])[ \t]", Role.LIST),
        (r"\[\^[^\]\s]{1,32}\]:", Role.FOOTNOTE),
    )
)
_HEADING_LINE = re.compile(r" {0,3}#{1,6}[ \t]")
_TABLE = re.compile(r"<(/?)table\b")
_TABLE_LINE = re.compile(r"\s*+<table\b")
#: code within a line has the backquotes of its end there
_FENCE = re.compile(r" {0,3}(`{3,}+(?=[^`]*+$)|~{3,})")


def role_of(markdown: str) -> Role:
    """Return the role of a part by its beginning; TEXT by default."""
    return next((role for beginning, role in _BEGINNINGS if beginning.match(markdown)), Role.TEXT)


def refined(role: Role, markdown: str) -> Role:
    """Return a more exact role from the Markdown: a title of a lower level is a heading, a text may be a list."""
    written = role_of(markdown)
    if role is Role.TEXT or (role is Role.TITLE and written is Role.HEADING):
        return written
    return role


def blocks(markdown: str) -> Iterator[Block]:
    """Yield the parts of a page without layout: headings, tables, code, and paragraphs between empty lines.

    A part has no label and no box. No line is lost or moved. A table or a code block without an end extends to the end of
    the page.
    """
    for part in _parts(markdown.replace("\r\n", "\n").replace("\r", "\n").split("\n")):
        text = "\n".join(part).strip()
        if text:
            yield Block(label="", role=role_of(text), markdown=text)


def _parts(lines: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    #: number of open tables; the fence of the open code block
    tables, fence = 0, ""
    for line in lines:
        if fence:
            part.append(line)
            if line.strip().startswith(fence) and not line.strip(f" {fence[0]}\t"):
                yield part
                part, fence = [], ""
        elif tables:
            part.append(line)
            tables = _open(line, tables)
            if not tables:
                yield part
                part = []
        elif not line.strip():
            yield part
            part = []
        elif _HEADING_LINE.match(line):
            yield part
            yield [line]
            part = []
        else:
            code, table = _FENCE.match(line), _TABLE_LINE.match(line)
            if code or table:
                yield part
                part = []
            part.append(line)
            fence = code[1] if code else ""
            tables = 0 if code else _open(line, 0)
            if table and not tables:
                yield part
                part = []
    yield part


def _open(line: str, tables: int) -> int:
    """Return the number of open tables after a line, from the number before it."""
    for tag in _TABLE.finditer(line):
        tables = max(0, tables - 1) if tag[1] else tables + 1
    return tables
