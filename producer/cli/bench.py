"""`ocrfleet bench`: measure the speed of a profile on this machine."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ocrfleet.profiles.profile import Profile
from producer.cli import terminal
from producer.cli.options import BaseUrlOption, WorkersOption, read_settings, with_profile
from producer.cli.run import carry_out, exit_code
from producer.local.progress import Report
from producer.local.run import Order
from producer.processes.worker_command import default_workers

_DAY = 86_400


@with_profile
def bench(
    inputs: Annotated[
        list[Path], typer.Argument(help="Documents, as for [b]ocrfleet run[/]; more of them measure better.")
    ],
    *,
    chosen: Profile,
    base_url: BaseUrlOption = None,
    workers: WorkersOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure the speed of a profile on this machine: pages a day, tokens a page, seconds that the engine was idle.

    Reads the documents with an embedded fleet, into a temporary folder.

    [b]ocrfleet bench --profile deepseek-ocr scans/[/]
    """
    settings = read_settings(base_url=base_url)
    with tempfile.TemporaryDirectory(prefix="ocrfleet-bench-") as folder:
        order = Order(
            inputs=tuple(inputs),
            output=Path(folder),
            profile=chosen,
            workers=workers or default_workers(chosen, settings),
            measured=True,
        )
        result = carry_out(order, settings)
    code = exit_code(result, order)
    speeds = speed(result)
    terminal.echo(json.dumps(speeds, indent=1)) if as_json else show_speed(speeds)
    sys.exit(code)


def speed(report: Report) -> dict[str, Any]:
    """Return the speed of a measured run. Seconds of starting and without pages do not count as busy."""
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
    """Print the result as a table."""
    table = Table(show_header=False, box=None)
    labels = {
        "pages_per_day": "pages a day, all workers, while busy",
        "pages_per_day_per_worker": "pages a day of each worker",
        "tokens_per_page": "tokens a page",
        "tokens_per_second": "tokens a second, all workers",
        "starved_seconds": "seconds that the engines were idle while pages were rendered",
        "starved_share": "share of the busy seconds",
        "busy_seconds": "seconds that the engines were busy",
        "seconds_in_all": "seconds in all, including the start of the workers",
        "pages_read": "pages read",
        "pages_failed": "pages failed",
        "workers": "workers",
    }
    for name, words in labels.items():
        value = facts[name]
        shown = (
            f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if name == "starved_share" else f"{value:,.1f}"
        )
        table.add_row(f"[bold]{shown}[/]", words)
    terminal.console().print(table)
