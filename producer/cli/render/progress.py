"""Progress of a long command: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from producer.local.progress import Tally
from producer.text import duration, printable

#: Seconds between two lines outside of a terminal.
_LINE_EVERY = 10.0


@contextmanager
def run_progress(console: Console) -> Iterator[Callable[[Tally], None]]:
    """Show the progress of a run."""
    with bar(console) as show:
        yield lambda tally: show(line(tally), tally.done + tally.failed, tally.pages or None)


@contextmanager
def bar(console: Console) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a text and a done part of a total: as a bar on a terminal, elsewhere as a line from time to time."""
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
