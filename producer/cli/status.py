"""`ocrfleet status` without arguments: the whole fleet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ocrfleet.profiles.select import named
from ocrfleet.settings import Settings
from producer.cli import terminal
from producer.monitoring.inventory import COLLECTION_LIMIT
from producer.monitoring.status import fleet_status
from producer.state.leader import NO_LEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console


def _options(profile: str) -> str:
    """Return the options that start a worker of a profile. The name of a profile made from options does not give them."""
    if any(known.name == profile for known in named()):
        return f"--profile {profile}"
    return "with the same --engine, --model, --prompt, … or --profile FILE as the documents were registered with"


def show_status(settings: Settings, *, as_json: bool) -> None:
    """Print the state of the fleet, with a remedy for jobs that no worker serves."""
    facts = fleet_status(settings)
    if as_json:
        terminal.echo(json.dumps(facts, indent=1))
        return
    console = terminal.console()
    table = Table("profile", "workers", "active documents", "jobs queued", box=None, padding=(0, 2))
    for row in facts["profiles"]:
        table.add_row(row["profile"], str(row["workers"]), str(row["documents"]), str(row["jobs_queued"]))
    console.print(table)
    for row in facts["profiles"]:
        if not row["served"] and (row["jobs_queued"] or row["documents"]):
            console.print(
                f"[red]No worker serves {row['profile']}[/]: {row['jobs_queued']} jobs wait. "
                f"Start a worker: ocrfleet worker {_options(row['profile'])}",
                soft_wrap=True,
            )
    if not facts["led"]:
        console.print(f"[red]{NO_LEADER.capitalize()}[/]", soft_wrap=True)
    for queue, collections in facts["waiting_documents"].items():
        for collection, count in collections.items():
            more = " or more" if count == COLLECTION_LIMIT else ""
            console.print(f"{queue} collection {collection}: {count}{more} documents wait to be dispatched")
    _show_workers(console, facts["workers"])


def _show_workers(console: Console, workers: Sequence[dict[str, Any]]) -> None:
    if not workers:
        console.print("No worker is registered at this Redis.")
        return
    table = Table("worker", "profile", "pages", "tokens", "idle s", box=None, padding=(0, 2))
    for state in workers:
        idle = f"{state['starved_seconds']:.0f} of {state['seconds']:.0f}"
        table.add_row(state["worker"], state["profile"], str(state["pages"]), str(state["tokens"]), idle)
        if state["sandbox_missing"]:
            missing = " and ".join(state["sandbox_missing"])
            console.print(
                f"[yellow]{state['worker']} opens documents without {missing}[/]: see docs/security.md", soft_wrap=True
            )
    console.print(table)
