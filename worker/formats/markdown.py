"""Markdown: the text to read, page after page, with a marker for each page that people and tools can find.

A page that is not done has its placeholder where its text would be: pages never shift.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from ocrfleet.jobs import DocumentStatus, Manifest, PageResult, PageStatus

EXTENSION = "md"

# What CommonMark would take for markup inside a line, and at its beginning: a page's text is data.
_INLINE = re.compile(r"[\\`*_\[\]<|~]|&(?=#?\w+;)")
_LINE_START = re.compile(r"[0-9]{1,9}(?=[.)](?:[ \t]|$))|(?=#{1,6}(?:[ \t]|$)|[-+](?:[ \t:-]|$)|[>=]|:-)")
_LINE_END = re.compile(r"\r\n?|\n")

# What a model may write as HTML: tables. No other tag, and no other attribute.
_TAG = re.compile(
    r"</?(?:table|thead|tbody|tr|td|th|caption)>|<br ?/?>|<t[dh](?: (?:row|col)span=\"?[0-9]{1,3}\"?){1,2}>"
)
# A link, or a picture, that leads anywhere: what a page says is not to be followed.
_LINK = re.compile(r"\](?=[(\[:])")
# What could open a block of code, and swallow what follows: readers don't agree on where one opens.
_FENCE = re.compile(r"`{3,}|~{3,}")


class MarkdownWriter:
    """Writes one document to a stream, page by page."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:
        if manifest.problem is not None:
            reason, detail = manifest.problem.reason, manifest.problem.detail
            self._write(
                f"<!-- document {status}: {reason} -->\n\n> **This document could not be read:** {escape(' '.join(detail.split()))}\n"
            )

    def page(self, result: PageResult) -> None:
        if result.status is PageStatus.FAILED:
            self._write(f"<!-- page {result.page} failed: {result.reason} -->\n\n")
            self._write(f"> **Page {result.page} is missing:** {escape(' '.join((result.detail or '').split()))}\n\n")
        elif result.blank:
            self._write(f"<!-- page {result.page} blank -->\n\n")
        else:
            self._write(f"<!-- page {result.page} -->\n\n")
            if result.text:
                self._write((clean(result.text) if result.markdown else escaped(result.text)) + "\n\n")

    def end(self) -> None:
        """Nothing follows the last page."""

    def _write(self, text: str) -> None:
        self._out.write(text.encode())


def escaped(text: str) -> str:
    """Return plain text as Markdown that reads the same."""
    return "\n".join(escape(line) for line in _LINE_END.split(text))


def clean(text: str) -> str:
    """Return a model's Markdown without what could do something or swallow the next page.

    That is HTML other than tables, links, and blocks of code. Entities stand in their place, as a backslash may be escaped
    by one that stands before it.
    """
    cleaned = "\n".join(_clean_line(line) for line in _LINE_END.split(text.strip()))
    return cleaned + "\n</table>" * max(0, cleaned.count("<table>") - cleaned.count("</table>"))


def _clean_line(line: str) -> str:
    pieces, end = [], 0
    for tag in _TAG.finditer(line):
        pieces += [line[end : tag.start()].replace("<", "&lt;"), tag[0]]
        end = tag.end()
    line = "".join([*pieces, line[end:].replace("<", "&lt;")])
    line = _FENCE.sub(lambda run: f"&#{ord(run[0][0])};" * len(run[0]), line)
    return _LINK.sub("&#93;", line)


def escape(line: str) -> str:
    """Return a line of plain text as Markdown that reads the same and means nothing."""
    line = _INLINE.sub(lambda match: "\\" + match[0] if match[0] != "&" else "&amp;", line.strip())
    start = _LINE_START.match(line)
    return f"{line[: start.end()]}\\{line[start.end() :]}" if start else line
