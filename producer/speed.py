"""`ocrfleet bench`: how fast the workers of a run have read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from producer.report import Report

_DAY = 86_400


def speed(report: Report) -> dict[str, Any]:
    """Return what a measured run came to. Seconds of starting, and of finding nothing to do, are apart."""
    workers = report.workers
    pages, tokens = sum(state.pages for state in workers), sum(state.tokens for state in workers)
    per_second = sum(state.pages / state.busy_seconds for state in workers if state.busy_seconds)
    busy = sum(state.busy_seconds for state in workers)
    starved = sum(state.starved_seconds for state in workers)
    return {
        "workers": len(workers),
        "pages_read": pages,
        "pages_failed": report.tally.failed,
        "pages_per_day": round(per_second * _DAY),
        "pages_per_day_per_worker": round(per_second * _DAY / len(workers)) if workers else 0,
        "tokens_per_page": round(tokens / pages, 1) if pages else 0,
        "tokens_per_second": round(tokens / busy * len(workers), 1) if busy else 0,
        "busy_seconds": round(busy, 1),
        "starved_seconds": round(starved, 1),
        "starved_share": round(starved / busy, 4) if busy else 0,
        "seconds_in_all": round(report.tally.seconds, 1),
    }


def show_speed(facts: dict[str, Any]) -> None:
    """Print it for a person."""
    table = Table(show_header=False, box=None)
    told = {
        "pages_per_day": "pages a day, all workers, while they read",
        "pages_per_day_per_worker": "pages a day of each worker",
        "tokens_per_page": "tokens a page",
        "tokens_per_second": "tokens a second, all workers",
        "starved_seconds": "seconds the engine had room while pages were being made ready for it",
        "starved_share": "share of the time",
        "busy_seconds": "seconds the engines were reading",
        "seconds_in_all": "seconds in all, with the start of the workers",
        "pages_read": "pages read",
        "pages_failed": "pages failed",
        "workers": "workers",
    }
    for name, words in told.items():
        value = facts[name]
        shown = (
            f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if name == "starved_share" else f"{value:,.1f}"
        )
        table.add_row(f"[bold]{shown}[/]", words)
    Console(highlight=False).print(table)
