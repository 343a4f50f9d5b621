"""Renders a run: progress while it runs, a table at its end, or one JSON summary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from natsort import natsorted
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ocrfleet.records.documents import DocumentStatus
from producer.text import duration, printable, shown, warnings_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from producer.intake.discover import Skipped
    from producer.local.progress import Ended, Report

#: The most rows of a table; `--json` has all of them.
_ROWS = 20

_STYLE = {
    DocumentStatus.COMPLETED: "green",
    DocumentStatus.PARTIAL: "yellow",
    DocumentStatus.FAILED: "red",
    DocumentStatus.CANCELLED: "dim",
}


def report(console: Console, result: Report, output: Path) -> None:
    """Print the documents, the failures with their reasons, and the folder of the outputs."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading, justify in (("document", "left"), ("pages", "right"), ("", "left"), ("text", "left")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    worst_first = natsorted(result.ended, key=lambda item: (item.status is DocumentStatus.COMPLETED, item.name))
    for item in worst_first[:_ROWS]:
        style = _STYLE[item.status]
        text = min(map(str, item.files), key=lambda path: not path.endswith(".md"), default="")
        pages = str(item.total) if item.done == item.total else f"{item.done}/{item.total}"
        table.add_row(shown(item.name), pages, f"[{style}]{item.status}[/]", shown(text))
    if result.ended:
        console.print(table)
    _more(console, len(worst_first) - _ROWS, "documents")
    _failures(console, worst_first)
    _warnings(console, worst_first)
    _review(console, worst_first)
    show_skipped(console, result.skipped)
    tally = result.tally
    reused = f" ({tally.reused} of them were in the store already)" if tally.reused else ""
    own = sum({item.document: item.text_layer for item in result.ended}.values())
    saved = f", {own} from their text layer" if own else ""
    console.print(
        f"{tally.documents_ended} of {tally.documents} documents, "
        f"{tally.done} pages done{reused}{saved}, {tally.failed} failed, in {duration(tally.seconds)}. "
        f"Outputs are in [bold]{shown(str(output))}[/]."
    )
    if result.interrupted is not None:
        console.print("[yellow]Interrupted.[/] Run the same command again to resume.")
    elif any(page is not None for item in result.ended for page, _, _ in item.failures):
        console.print("Failed pages are tried again with [bold]--retry-failed[/].")


def show_skipped(console: Console, skipped: Sequence[Skipped]) -> None:
    """Print the skipped files with the reasons."""
    for item in skipped[:_ROWS]:
        style = "red" if item.named else "dim"
        console.print(f"[{style}]skipped[/] {shown(item.name)}: {escape(item.reason)}")
    _more(console, len(skipped) - _ROWS, "skipped files")


def _failures(console: Console, items: list[Ended]) -> None:
    lines = [
        f"[red]{shown(item.name)}[/]{f' page {page}' if page else ''}: {reason}: {escape(detail)}"
        for item in items
        for page, reason, detail in item.failures
    ]
    for text in lines[:_ROWS]:
        console.print(text)
    _more(console, len(lines) - _ROWS, "failures")


def _warnings(console: Console, items: list[Ended]) -> None:
    lines = [f"[yellow]{shown(item.name)}[/]: {warnings_of(item.warnings)}" for item in items if item.warnings]
    for text in lines[:_ROWS]:
        console.print(text)
    _more(console, len(lines) - _ROWS, "documents with warnings")


def _review(console: Console, items: list[Ended]) -> None:
    lines = [
        f"[yellow]{shown(item.name)}[/] page {doubt.page}: look at it: {escape(doubt.reason)}"
        for item in items
        for doubt in item.review
    ]
    for text in lines[:_ROWS]:
        console.print(text)
    _more(console, len(lines) - _ROWS, "pages to look at")


def _more(console: Console, number: int, what: str) -> None:
    if number > 0:
        console.print(f"[dim]… and {number} more {what} (--json lists them all)[/]")


def summary(result: Report) -> str:
    """Return the report as one JSON object."""
    tally = result.tally
    facts: dict[str, Any] = {
        "documents": tally.documents,
        "documents_ended": tally.documents_ended,
        "pages": tally.pages,
        "pages_done": tally.done,
        "pages_failed": tally.failed,
        "pages_reused": tally.reused,
        "seconds": round(tally.seconds, 3),
        "interrupted": result.interrupted is not None,
        "results": [
            {
                "name": printable(item.name),
                "document": item.document,
                "status": item.status,
                "pages": item.total,
                "pages_done": item.done,
                "pages_from_text_layer": item.text_layer,
                "warnings": item.warnings,
                "review": [doubt.model_dump(mode="json", exclude={"schema_version"}) for doubt in item.review],
                "failures": [
                    {"page": page, "reason": reason, "detail": detail} for page, reason, detail in item.failures
                ],
                "files": [printable(str(path)) for path in item.files],
            }
            for item in sorted(result.ended, key=lambda item: item.name)
        ],
        "skipped": [{"name": printable(item.name), "reason": item.reason} for item in result.skipped],
    }
    return json.dumps(facts, indent=1)
