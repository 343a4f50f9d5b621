"""HTML: one page that needs nothing else, with its figures inside; no script, and nothing that a page's text could begin.

The policy in its head forbids scripts and requests, so that even a mistake here would do nothing.
"""

from __future__ import annotations

import base64
import html
from typing import BinaryIO

from ocrfleet import keys
from ocrfleet.errors import NotFoundError
from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import PageResult
from worker.formats.content import Figure, content, notice, problem_notice, visible
from worker.formats.elements import Code, Element, Formula, Heading, Item, Paragraph, Quote, Rule, Table
from worker.formats.inline import plain
from worker.formats.materials import Materials

_HEAD = """<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ocrfleet">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 46rem; padding: 1rem; font: 1.05rem/1.6 Georgia, serif; color: #222; background: #fff }}
section {{ border-top: 1px solid #ddd; padding-top: .5rem; margin-top: 2rem }}
.page {{ font: .8rem sans-serif; text-align: right; margin: 0 }}
.page a {{ color: #767676; text-decoration: none }}
.notice {{ background: #fff3cd; border-left: 4px solid #b58900; padding: .5rem 1rem; font-family: sans-serif }}
h1, h2, h3, h4, h5, h6 {{ line-height: 1.25; font-family: sans-serif }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
td, th {{ border: 1px solid #bbb; padding: .2rem .5rem; text-align: start; vertical-align: top }}
caption {{ text-align: start; font-style: italic }}
figure {{ margin: 1rem 0 }}
img {{ max-width: 100%; height: auto }}
pre {{ overflow-x: auto; background: #f6f6f6; padding: .5rem }}
</style>
</head>
<body>
"""


class HtmlWriter:
    """Writes one document to a stream, page by page."""

    def __init__(self, out: BinaryIO, materials: Materials) -> None:
        self._out = out
        self._store = materials.store
        self._document = ""

    def begin(self, manifest: Manifest, _status: DocumentStatus) -> None:
        self._document = manifest.document
        self._write(_HEAD.format(title=f"Document {manifest.document}"))
        if manifest.problem is not None:
            self._write(f'<p class="notice">{_escaped(problem_notice(manifest.problem))}</p>\n')

    def page(self, result: PageResult) -> None:
        name = f"page-{result.page}"
        self._write(
            f'<section id="{name}" aria-label="Page {result.page}">\n'
            f'<p class="page"><a href="#{name}">{result.page}</a></p>\n'
        )
        if words := notice(result):
            self._write(f'<p class="notice">{_escaped(words)}</p>\n')
        items: list[Item] = []
        for part in content(result):
            if isinstance(part, Item):
                items.append(part)
                continue
            self._items(items)
            items = []
            if isinstance(part, Figure):
                self._figure(part)
            else:
                self._write(_element(part) + "\n")
        self._items(items)
        self._write("</section>\n")

    def end(self) -> None:
        self._write("</body>\n</html>\n")

    def _figure(self, figure: Figure) -> None:
        try:
            data = self._store.get(keys.figure(self._document, figure.name))
        except NotFoundError:  # removed by hand
            self._write('<p class="notice">A figure is missing.</p>\n')
            return
        alternative = html.escape(visible(figure.caption)) or "Figure"
        self._write('<figure><img alt="' + alternative + '" src="data:image/jpeg;base64,')
        self._out.write(base64.b64encode(data))
        self._write('"></figure>\n')

    def _items(self, items: list[Item]) -> None:
        """Write the items of a list, those that are indented within the one before them."""
        open_lists: list[tuple[int, str]] = []
        for item in items:
            tag = "ol" if item.marker[:-1].isdigit() else "ul"
            while open_lists and item.indent < open_lists[-1][0]:
                self._write(f"</li></{open_lists.pop()[1]}>\n")
            if not open_lists or item.indent > open_lists[-1][0]:
                open_lists.append((item.indent, tag))
                self._write(f"<{tag}>\n")
            elif tag != open_lists[-1][1]:
                self._write(f"</li></{open_lists.pop()[1]}>\n<{tag}>\n")
                open_lists.append((item.indent, tag))
            else:
                self._write("</li>\n")
            # HTML counts by itself, but a list may go on from the page before. Browsers take 32 bits.
            number = f' value="{int(item.marker[:-1])}"' if tag == "ol" else ""
            self._write(f'<li dir="auto"{number}>{_lines(item.lines)}')
        while open_lists:
            self._write(f"</li></{open_lists.pop()[1]}>\n")

    def _write(self, text: str) -> None:
        self._out.write(text.encode())


def _element(element: Element) -> str:
    match element:
        case Heading(level, text):
            written = f'<h{level} dir="auto">{_escaped(plain(text))}</h{level}>'
        case Paragraph(lines) | Item(_, _, lines):
            written = f'<p dir="auto">{_lines(lines)}</p>'
        case Quote(lines):
            written = f'<blockquote dir="auto"><p>{_lines(lines)}</p></blockquote>'
        case Rule():
            written = "<hr>"
        case Code(_, lines):
            written = f"<pre><code>{_escaped(chr(10).join(lines))}</code></pre>"
        case Formula(tex):
            written = f"<p><code>{_escaped(tex)}</code></p>"
        case Table():
            written = visible(element.markdown())
    return written


def _lines(lines: tuple[str, ...]) -> str:
    return "<br>\n".join(_escaped(plain(line)) for line in lines)


def _escaped(text: str) -> str:
    return html.escape(visible(text))
