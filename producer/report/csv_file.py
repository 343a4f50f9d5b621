"""The report as CSV: one line per page, and one per source without pages."""

from __future__ import annotations

import csv
from typing import TextIO

from producer.report.pages import Excluded, Reported, ReportedPage
from producer.text import csv_cell

HEADER = [
    "source",
    "uri",
    "document",
    "page",
    "status",
    "reason",
    "detail",
    "confidence",
    "review",
    "blank",
    "text_layer",
    "warnings",
    "script",
    "language",
    "words",
    "engine",
    "model",
    "attempts",
    "render_seconds",
    "recognise_seconds",
    "tokens",
    "other_names",
]
EXCLUDED = "excluded"


class CsvReport:
    """Writes the report to a text stream, page by page. Escapes texts that a spreadsheet would evaluate."""

    def __init__(self, out: TextIO) -> None:
        self._writer = csv.writer(out, lineterminator="\n")
        self._writer.writerow(HEADER)

    def page(self, document: Reported, page: ReportedPage) -> None:
        self._writer.writerow(
            [
                *self._source(document),
                page.page,
                page.state,
                page.reason,
                csv_cell("; ".join(filter(None, (page.detail, *page.warning_details)))),
                "" if page.confidence is None else f"{page.confidence:.3f}",
                int(page.review),
                int(page.blank),
                int(page.text_layer),
                " ".join(page.warnings),
                page.script,
                page.language,
                page.words,
                csv_cell(page.engine),
                csv_cell(page.model),
                page.effort.attempts,
                f"{page.effort.render_seconds:.3f}",
                f"{page.effort.recognise_seconds:.3f}",
                page.effort.tokens,
                csv_cell(", ".join(document.others)),
            ]
        )

    def excluded(self, source: Excluded) -> None:
        row = [csv_cell(source.name), csv_cell(source.uri), "", "", EXCLUDED, "", csv_cell(source.why)]
        self._writer.writerow(row)

    @staticmethod
    def _source(document: Reported) -> list[str]:
        return [csv_cell(document.name), csv_cell(document.uri), document.document]
