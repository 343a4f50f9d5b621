"""The rows of a report as columns of numbers: 100,000 pages take a few megabytes."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator

from producer.report.pages import PageState, ReportedPage
from producer.text import printable

#: Maximum number of different details in the HTML file; the CSV file has all.
MOST_DETAILS = 20_000
LONGEST_DETAIL = 300
ELSEWHERE = "see report.csv: this file has too many details"

BLANK, TEXT_LAYER, REVIEW = 1, 2, 4


class Words:
    """Numbers texts, each once. After `most` different texts, all others share one number."""

    def __init__(self, most: int) -> None:
        self._numbers: dict[str, int] = {"": 0}
        self._most = most

    def number(self, text: str) -> int:
        if text not in self._numbers and len(self._numbers) >= self._most:
            text = ELSEWHERE
        return self._numbers.setdefault(text, len(self._numbers))

    def texts(self) -> list[str]:
        return list(self._numbers)


class Table:
    """The pages of a report, in the order in which they were added."""

    def __init__(self) -> None:
        self.states, self.reasons, self.scripts, self.languages = Words(8), Words(200), Words(200), Words(200)
        self.warnings, self.details = Words(2000), Words(MOST_DETAILS)
        names = "document page state reason confidence flags warnings script language words seconds tokens detail"
        self._columns = {name: array("q") for name in names.split()}

    def __len__(self) -> int:
        return len(self._columns["page"])

    def add(self, document: int, page: ReportedPage) -> None:
        """Add a page; `document` is the number of its document."""
        seconds = page.effort.render_seconds + page.effort.recognise_seconds
        row = {
            "document": document,
            "page": page.page,
            "state": self.states.number(page.state),
            "reason": self.reasons.number(page.reason),
            # per mille; -1: none
            "confidence": -1 if page.confidence is None else round(page.confidence * 1000),
            "flags": BLANK * page.blank + TEXT_LAYER * page.text_layer + REVIEW * page.review,
            "warnings": self.warnings.number(" ".join(page.warnings)),
            "script": self.scripts.number(page.script),
            "language": self.languages.number(page.language),
            "words": page.words,
            # tenths; -1: no run record
            "seconds": round(seconds * 10) if page.effort.attempts else -1,
            "tokens": page.effort.tokens,
            "detail": self.details.number(printable(_detail(page))[:LONGEST_DETAIL]),
        }
        for name, value in row.items():
            self._columns[name].append(value)

    def columns(self) -> Iterator[tuple[str, str]]:
        """Yield each column as JSON: its values, or run-length encoded if that is shorter."""
        for name, values in self._columns.items():
            runs = _runs(values)
            if len(runs) < len(values):
                yield name, json.dumps({"runs": runs}, separators=(",", ":"))
            else:
                yield name, json.dumps(values.tolist(), separators=(",", ":"))


def _detail(page: ReportedPage) -> str:
    """Return the detail and the warnings of a page."""
    return "; ".join(filter(None, (page.detail, *page.warning_details))) if page.state is not PageState.OPEN else ""


def _runs(values: array[int]) -> list[int]:
    """Return the run-length encoding: [value, count, value, count, …]."""
    runs: list[int] = []
    for value in values:
        if runs and runs[-2] == value:
            runs[-1] += 1
        else:
            runs += [value, 1]
    return runs
