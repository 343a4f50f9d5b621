"""Markdown of a document: the text of its pages in order, each after a marker with the page's number.

A page that is not done has a placeholder, so that pages never shift. Rejected text follows a note about the rejection. Running
heads, feet and printed page numbers are left out, because they would interrupt the text on each page; the JSON has them, and
a page with nothing else shows them.

The stored text depends on the pages only; ocrfleet/markdown/style.py converts it to a style at delivery.
"""

from __future__ import annotations

from typing import BinaryIO

from ocrfleet.markdown.escape import escape, escape_inline, escaped, figure_path
from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import Block, PageResult, PageStatus
from worker.formats.blocks import read
from worker.formats.elements import to_markdown
from worker.formats.materials import Materials
from worker.formats.page_text import ASIDE, captions, elements

#: The most characters of a picture's caption that become its alternative text.
_LONGEST_ALT = 200


class MarkdownWriter:
    """Writes one document to a stream, page by page."""

    def __init__(self, out: BinaryIO, _: Materials | None = None) -> None:
        self._out = out
        self._document = ""

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:
        self._document = manifest.document
        if manifest.problem is not None:
            reason, detail = manifest.problem.reason, manifest.problem.detail
            self._write(f"<!-- document {status}: {reason} -->", _note("This document could not be read:", detail))

    def page(self, result: PageResult) -> None:
        text = self._text(result)
        if result.status is PageStatus.FAILED:
            found = f"The text of page {result.page} can't be trusted:" if text else f"Page {result.page} is missing:"
            note = _note(found, result.detail or "")
            self._write(f"<!-- page {result.page} failed: {result.reason} -->", note, text)
        elif result.blank:
            self._write(f"<!-- page {result.page} blank -->")
        else:
            self._write(f"<!-- page {result.page} -->", text)

    def end(self) -> None:
        """Nothing follows the last page."""

    def _text(self, result: PageResult) -> str:
        text = self._blocks(result.blocks)
        if text or not result.text:
            return text
        return clean(result.text) if result.markdown else escaped(result.text)

    def _blocks(self, blocks: tuple[Block, ...]) -> str:
        alternatives = captions(blocks)
        parts: list[str] = []
        aside: list[str] = []
        for index, block in enumerate(blocks):
            if block.figure is not None:
                alt = escape_inline(alternatives.get(index, "")[:_LONGEST_ALT]) or "Figure"
                parts.append(f"![{alt}]({figure_path(self._document, block.figure)})")
            (aside if block.role in ASIDE else parts).append(to_markdown(elements(block)))
        return "\n\n".join(filter(None, parts)) or "\n\n".join(filter(None, aside))

    def _write(self, *parts: str) -> None:
        self._out.write("".join(f"{part}\n\n" for part in parts if part).encode())


def clean(text: str) -> str:
    """Return a model's Markdown as CommonMark without active content or links, with all constructs closed.

    Tables are the only HTML; formulas are between dollar signs, links become their text, headings have their own lines.
    """
    return to_markdown(read(text))


def _note(what: str, detail: str) -> str:
    return f"> **{what}** {escape(' '.join(detail.split()))}"
