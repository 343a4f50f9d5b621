"""Renders documents and collections: as tables, CSV, JSON."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable

from rich.markup import escape

from producer.cli import terminal
from producer.documents.views import DocumentView, Forecast, SourceRow, State
from producer.documents.wait import Outcome
from producer.state.quarantine import View
from producer.text import csv_cell, duration, printable, shown, warnings_of

#: The most failures of a document that are printed; --json has all of them.
_ROWS = 20
_STYLE = {State.COMPLETED: "green", State.PARTIAL: "yellow", State.FAILED: "red", State.DAMAGED: "red"}


def as_json_line(view: View) -> str:
    """Return a value as one line of JSON, in ASCII, without control characters."""
    return json.dumps(view.model_dump(mode="json", exclude_none=True))


def write_csv(rows: Iterable[SourceRow], write: Callable[[str], object]) -> None:
    """Write a collection's report as CSV, a line for each source. Cells that a spreadsheet would evaluate are escaped."""
    writer = csv.writer(_Lines(write), lineterminator="\n")
    writer.writerow(["source", "uri", "document", "status", "pages", "done", "failed", "review", "reasons"])
    for row in rows:
        texts = (row.name, row.uri, row.document or "", row.state)
        writer.writerow([*map(csv_cell, texts), row.total, row.done, row.failed, row.review, csv_cell(row.reasons)])


class _Lines:
    """A file for csv.writer."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self.write = write


def show_document(view: DocumentView) -> None:
    console = terminal.console(soft_wrap=True)
    names = ", ".join(shown(name.name) for name in view.names[:3]) or "no submission"
    console.print(f"[b]{view.id}[/]  {names}")
    style = _STYLE.get(view.state, "bold")
    failed = f", {view.failed} failed" if view.failed else ""
    console.print(f"[{style}]{view.state}[/]: {view.done} of {view.total} pages done{failed}")
    collections = ", ".join(view.collections)
    console.print(f"profile {view.profile}, collection {collections}, registered {view.created}, try {view.generation}")
    if view.problem is not None:
        console.print(f"[red]{view.problem.reason}[/]: {escape(printable(view.problem.detail))}")
    if view.undelivered is not None:
        console.print(f"[red]not delivered[/], tried again every ten minutes: {escape(printable(view.undelivered))}")
    for failure in view.failures[:_ROWS]:
        console.print(f"page {failure.page}: [red]{failure.reason}[/]: {escape(printable(failure.detail))}")
    if len(view.failures) > _ROWS:
        console.print(f"[dim]… and {len(view.failures) - _ROWS} more failures (--json lists them all)[/]")
    for doubt in view.review_pages[:_ROWS]:
        console.print(f"page {doubt.page}: [yellow]look at it[/]: {escape(printable(doubt.reason))}")
    if len(view.review_pages) > _ROWS:
        console.print(f"[dim]… and {len(view.review_pages) - _ROWS} more to look at (--json lists them all)[/]")
    if view.warnings:
        console.print(f"[yellow]{warnings_of(view.warnings)}[/]; details of each page: --json")
    for extension, output in view.outputs.items():
        console.print(f"{extension}: {output.size} bytes. Fetch it: ocrfleet results {view.id} -o FOLDER")
    for extension, why in view.refused.items():
        console.print(f"{extension}: [red]not written[/]: {escape(printable(why))}")


def show_collection(collection: str, rows: Iterable[SourceRow], forecast: Forecast, *, paused: bool) -> None:
    """Print a line for each source as it is read: a collection may be larger than the memory."""
    console = terminal.console(soft_wrap=True)
    sources: Counter[State] = Counter()
    pages = done = failed = review = 0
    for row in rows:
        sources[row.state] += 1
        pages, done, failed, review = pages + row.total, done + row.done, failed + row.failed, review + row.review
        style = _STYLE.get(row.state, "default")
        counted = f"{row.done}/{row.total}" if row.state is not State.ARRIVING else "?"
        reasons = f"  {escape(printable(row.reasons))}" if row.reasons else ""
        console.print(f"[{style}]{row.state:<10}[/]{counted:>13}  {row.document or '':<32}  {shown(row.name)}{reasons}")
    if not sources:
        console.print(f"Collection {collection} has no sources.")
        return
    counts = ", ".join(f"{count} {state}" for state, count in sources.most_common())
    console.print(
        f"{collection}: {sources.total()} sources ({counts}); {done} of {pages} pages done, {failed} failed, {review} for review"
    )
    if paused:
        console.print(f"[yellow]Paused.[/] To resume: ocrfleet resume --collection {collection}")
    console.print(_said(forecast))


def show_outcome(collection: str, outcome: Outcome) -> None:
    """Print the outcome of a collection, and its sources that lack text."""
    console = terminal.console(soft_wrap=True)
    for row in outcome.wanting:
        style = _STYLE.get(row.state, "default")
        reasons = f": {escape(printable(row.reasons))}" if row.reasons else ""
        console.print(f"[{style}]{row.state}[/] {shown(row.name)} ({row.done} of {row.total} pages){reasons}")
    others = outcome.sources.total() - outcome.sources[State.COMPLETED] - len(outcome.wanting)
    if others:
        console.print(f"[dim]… and {others} more (ocrfleet status --collection {collection} --csv lists them all)[/]")
    for left in outcome.undelivered:
        console.print(f"[red]not delivered[/], tried again every ten minutes: {escape(printable(left.detail))}")
    counts = ", ".join(f"{count} {state}" for state, count in outcome.sources.most_common())
    console.print(
        f"{collection}: {outcome.sources.total()} sources ({counts}); {outcome.done} of {outcome.pages} pages done, "
        f"{outcome.failed} failed."
    )


def _said(forecast: Forecast) -> str:
    """Return a sentence with the time left."""
    about = "" if forecast.exact else "about "
    arriving = f"; {forecast.arriving} sources are not counted yet" if forecast.arriving else ""
    if not forecast.pages and not forecast.arriving:
        held_up = f" Not delivered yet: {forecast.finishing} documents; {forecast.reason}" if forecast.reason else ""
        return f"No pages are left to read.{escape(printable(held_up))}"
    left = f"{about}{forecast.pages} pages are left{arriving}"
    if forecast.seconds is None:
        return f"{left}. The time left is unknown: {escape(printable(forecast.reason or 'unknown'))}"
    speed = " at an assumed speed (OCRFLEET_PAGES_PER_SECOND)" if forecast.assumed else ""
    return f"{left}: done in about {duration(forecast.seconds)}{speed}, if the workers read nothing else."
