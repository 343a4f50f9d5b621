"""The report as one self-contained HTML file, which opens without a network.

The data is JSON in a script element of type application/json, which browsers do not execute. The script inserts the data as text
nodes only. The Content-Security-Policy allows this script and this style by their digests, embedded images, and no requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TextIO

from producer.report.pages import Excluded, Reported
from producer.report.summary import Summary
from producer.report.table import Table
from producer.report.worst import WorstPage
from producer.text import printable

#: Identifies a report: the output of a document may have the same file name.
MARK = '<meta name="generator" content="ocrfleet report">'
#: Maximum number of excluded sources in the HTML file; report.csv has all.
MOST_EXCLUDED = 2000
_ASSETS = Path(__file__).with_name("assets")
#: These characters occur in JSON only within strings. Escaped, they can't form a tag or a comment.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
#: Control characters except tab and line feed, bidirectional controls, surrogates, and the byte order mark.
_UNSEEN = dict.fromkeys(
    (
        *range(0x09),
        *range(0x0B, 0x20),
        *range(0x7F, 0xA0),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        *range(0xD800, 0xE000),
        0xFEFF,
    )
)


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """A document in the HTML report."""

    reported: Reported
    #: link to the text, and its fragment before the page number
    text: tuple[str, str] = ("", "")
    #: for each source: link, number of pages, whether the link can name a page
    originals: list[tuple[str, int, bool]] = field(default_factory=list)

    def row(self) -> list[Any]:
        """Return the row that report.js reads."""
        one = self.reported
        return [
            printable(one.name),
            one.document,
            str(one.state),
            printable(one.uri),
            *self.text,
            self.originals,
            len(one.others),
        ]


@dataclass(frozen=True, slots=True)
class ShownPage:
    """One of the worst pages, with its image, or the reason why it has none."""

    worst: WorstPage
    #: JPEG in base64
    image: str | None
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Content of the HTML report."""

    #: name of the output folder or the collection
    title: str
    #: creation time, as shown
    made: str
    #: whether this is a collection of a fleet; `ocrfleet results` then fetches the outputs
    fleet: bool
    summary: Summary
    table: Table
    documents: list[ListedDocument]
    excluded: list[Excluded]
    worst: list[ShownPage]


def write_html(content: Content, out: TextIO) -> None:
    """Write the report."""
    style = (_ASSETS / "report.css").read_text(encoding="utf-8")
    script = (_ASSETS / "report.js").read_text(encoding="utf-8")
    head, _, foot = (_ASSETS / "report.html").read_text(encoding="utf-8").partition("{{data}}")
    for name, value in (("mark", MARK), ("policy", _policy(style, script)), ("style", style)):
        head = head.replace("{{" + name + "}}", value)
    out.write(head)
    out.writelines(_inert(piece) for piece in _data(content))
    out.write(foot.replace("{{script}}", script))


def _policy(style: str, script: str) -> str:
    """Return the value of Content-Security-Policy."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(content: Content) -> Iterator[str]:
    """Yield the JSON in pieces."""
    table = content.table
    summary = content.summary
    numbers = {one.name: getattr(summary, one.name) for one in fields(summary) if not one.name.startswith("_")}
    facts = {
        "title": printable(content.title),
        "made": content.made,
        "fleet": content.fleet,
        "summary": numbers | {"workers": len(summary.workers), "working_seconds": summary.working_seconds},
        "states": table.states.texts(),
        "reasons": table.reasons.texts(),
        "warnings": table.warnings.texts(),
        "scripts": table.scripts.texts(),
        "languages": table.languages.texts(),
        "details": table.details.texts(),
        "excluded": [
            [printable(one.name), printable(one.uri), printable(one.why)] for one in content.excluded[:MOST_EXCLUDED]
        ],
        "excluded_total": len(content.excluded),
    }
    for number, (name, value) in enumerate(facts.items()):
        yield f"{'{' if number == 0 else ','}{_json(name)}:{_json(value)}\n"
    yield ',"documents":['
    for number, document in enumerate(content.documents):
        yield f"{',' if number else ''}{_json(document.row())}\n"
    yield '],"columns":{'
    for number, (name, values) in enumerate(table.columns()):
        yield f"{',' if number else ''}{_json(name)}:{values}\n"
    yield '},"worst":['
    for number, shown in enumerate(content.worst):
        row = [shown.worst.row, shown.image, printable(shown.why or ""), shown.worst.text.translate(_UNSEEN)]
        yield f"{',' if number else ''}{_json(row)}\n"
    yield "]}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _inert(text: str) -> str:
    for sign, escape in _ESCAPES.items():
        text = text.replace(sign, escape)
    return text
