"""The report as one HTML file that needs nothing else and opens without a network.

The data is JSON in a block that no browser executes; the script puts it on the page as text only. The policy in the head allows
this one script and this one style, by their digests, images within the file, and no request.
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

#: By this a report is known from a document's output of the same name.
MARK = '<meta name="generator" content="ocrfleet report">'
#: Excluded sources that are listed; report.csv has all.
MOST_EXCLUDED = 2000
_ASSETS = Path(__file__).with_name("assets")
#: In JSON only within strings; as escapes no browser sees a tag or a comment in them.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
#: Controls but tab and line feed, Unicode's controls of direction, and what is no character.
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
    """A document as the report lists it."""

    reported: Reported
    #: link to its text, and what stands before the page's number in it
    text: tuple[str, str] = ("", "")
    #: link, pages, whether a page can be named in the link; of each source
    originals: list[tuple[str, int, bool]] = field(default_factory=list)

    def row(self) -> list[Any]:
        """Return it as the script reads it."""
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
    """One of the worst pages, with its image or the reason why there is none."""

    worst: WorstPage
    #: JPEG in base64
    image: str | None
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """All that the report shows."""

    #: name of the folder or the collection
    title: str
    #: when it was made, for people
    made: str
    #: whether it is of a fleet's collection, whose outputs are fetched by command
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
