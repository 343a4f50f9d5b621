"""What a person sees of a run: progress while it works, a table when it has ended, or one JSON summary."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from natsort import natsorted
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from ocrfleet.records.documents import DocumentStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from producer.report import Ended, Report, Tally

#: Seconds between two lines when nobody watches.
_LINE_EVERY = 10.0
#: Rows of the tables before they are cut; `--json` has all of them.
_ROWS = 20

_STYLE = {
    DocumentStatus.COMPLETED: "green",
    DocumentStatus.PARTIAL: "yellow",
    DocumentStatus.FAILED: "red",
    DocumentStatus.CANCELLED: "dim",
}


@contextmanager
def progress(console: Console) -> Iterator[Callable[[Tally], None]]:
    """Show how far a run is."""
    with bar(console) as show:
        yield lambda tally: show(line(tally), tally.done + tally.failed, tally.pages or None)


@contextmanager
def bar(console: Console) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a text, and how much is done of how much: as a bar on a terminal, elsewhere as a line now and then."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as shown_bar:
        task = shown_bar.add_task("starting", total=None)

        def show(text: str, done: int, total: int | None) -> None:
            shown_bar.update(task, description=text, total=total, completed=done)

        yield show


def _lines(console: Console) -> Callable[[str, int, int | None], None]:
    last = time.monotonic()

    def show(text: str, _done: int, _total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY:
            last = time.monotonic()
            console.print(text, markup=False, highlight=False)

    return show


def line(tally: Tally) -> str:
    """Return the state of a run in one line."""
    more = "+" if tally.discovering else ""
    parts = [
        f"{tally.documents_ended}/{tally.documents}{more} documents",
        f"{tally.done}/{tally.pages}{more} pages",
    ]
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    parts.append(f"{tally.waiting} waiting")
    if tally.pages_per_second:
        parts.append(f"{tally.pages_per_second:.2f} pages/s")
    if tally.seconds_left is not None and not tally.discovering:
        parts.append(f"{duration(tally.seconds_left)} left")
    if tally.note:
        parts.append(printable(tally.note))
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    if seconds < 90:  # noqa: PLR2004 - up to a minute and a half
        return f"{seconds:.0f} s"
    if seconds < 5400:  # noqa: PLR2004 - up to an hour and a half
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def report(console: Console, result: Report, output: Path) -> None:
    """Print what was done, what was not and why, and where to look."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading, justify in (("document", "left"), ("pages", "right"), ("", "left"), ("text", "left")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    worst_first = natsorted(result.ended, key=lambda item: (item.status is DocumentStatus.COMPLETED, item.name))
    for item in worst_first[:_ROWS]:
        style = _STYLE[item.status]
        text = next((str(path) for path in item.files if path.suffix == ".md"), "")
        pages = str(item.total) if item.done == item.total else f"{item.done}/{item.total}"
        table.add_row(shown(item.name), pages, f"[{style}]{item.status}[/]", shown(text))
    if result.ended:
        console.print(table)
    _more(console, len(worst_first) - _ROWS, "documents")
    _failures(console, worst_first)
    for skipped in result.skipped[:_ROWS]:
        console.print(f"[dim]skipped[/] {shown(skipped.name)}: {escape(skipped.reason)}")
    _more(console, len(result.skipped) - _ROWS, "skipped files")
    tally = result.tally
    reused = f" ({tally.reused} of them were in the store already)" if tally.reused else ""
    own = sum({item.document: item.text_layer for item in result.ended}.values())
    saved = f", {own} by the text that they had already" if own else ""
    console.print(
        f"{tally.documents_ended} of {tally.documents} documents, "
        f"{tally.done} pages done{reused}{saved}, {tally.failed} failed, in {duration(tally.seconds)}. "
        f"Text and JSON are in [bold]{shown(str(output))}[/]."
    )
    if result.interrupted is not None:
        console.print("[yellow]Interrupted.[/] Run the same command again: it goes on where it stopped.")
    elif any(page is not None for item in result.ended for page, _, _ in item.failures):
        console.print("Failed pages are tried again with [bold]--retry-failed[/].")


def _failures(console: Console, items: list[Ended]) -> None:
    lines = [
        f"[red]{shown(item.name)}[/]{f' page {page}' if page else ''}: {reason}: {escape(detail)}"
        for item in items
        for page, reason, detail in item.failures
    ]
    for text in lines[:_ROWS]:
        console.print(text)
    _more(console, len(lines) - _ROWS, "failures")


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
                "failures": [
                    {"page": page, "reason": reason, "detail": detail} for page, reason, detail in item.failures
                ],
                "files": [printable(str(path)) for path in item.files],
            }
            for item in sorted(result.ended, key=lambda item: item.name)
        ],
        "skipped": [{"name": printable(item.name), "reason": item.reason} for item in result.skipped],
    }
    return json.dumps(facts, indent=1, ensure_ascii=False)


def shown(name: str) -> str:
    """Return a file name for rich's markup."""
    return escape(printable(name))


def printable(name: str) -> str:
    """Return a file name as text that a terminal only shows: control characters and stray bytes are escaped."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)
