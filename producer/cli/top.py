"""`ocrfleet top`: a fleet, live in a terminal."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.live import Live

from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import OcrfleetError
from ocrfleet.storage.open import open_store
from producer.cli import terminal
from producer.cli.options import read_settings
from producer.cli.render.top import screen
from producer.cli.stopping import stopped_by_signals
from producer.monitoring.top import Top, TopView

if TYPE_CHECKING:
    from ocrfleet.settings import Settings


def top(
    *,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two snapshots.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one snapshot and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one snapshot as JSON.")] = False,
) -> None:
    """Show a fleet live: backlog, speed, problems that need a person, and each worker.

    Asks Redis ([b]OCRFLEET_REDIS_URL[/]) and the store ([b]OCRFLEET_STORE[/]), nothing else. Ends on Ctrl-C.

    Exit code: 0; 3 when Redis or the store can't be used from the first.
    """
    settings = read_settings()
    store = open_store(settings)
    console = terminal.console()
    with closing(Top(settings, store, Ledger(settings.redis_url.get_secret_value()))) as looking:
        view = looking.look()
        if as_json:
            terminal.echo(json.dumps(facts(view), indent=1))
        elif once or not console.is_terminal:
            console.print(screen(view, store=settings.store, width=console.width))
        else:
            _go_on(looking, view, settings, console, every)


def facts(view: TopView) -> dict[str, Any]:
    """Return the view as `top --json` prints it."""
    fleet = view.fleet
    workers = [
        {
            **state.model_dump(mode="json", exclude={"schema_version"}),
            "lately": dataclasses.asdict(view.rates[state.worker]),
        }
        for state in fleet.workers
    ]
    lanes = {
        priority.value: {**dataclasses.asdict(backlog), "seconds_left": fleet.seconds_left(priority)}
        for priority, backlog in fleet.backlog.items()
    }
    answer: dict[str, Any] = to_jsonable_python(
        {
            "outlook": {
                "workers": workers,
                "speed": fleet.speed,
                "hoped": fleet.speed or fleet.assumed_speed,
                "lanes": lanes,
                "active": fleet.active,
                "inventory": dataclasses.asdict(fleet.inventory),
                "redis": dataclasses.asdict(fleet.redis),
            },
            "unserved": {profile: use.unserved for profile, use in fleet.profiles.items() if use.unserved},
            "failed": fleet.failed,
            "led": fleet.led,
            "at": fleet.taken,
        },
        inf_nan_mode="null",
    )
    return answer


def _go_on(looking: Top, view: TopView, settings: Settings, console: Console, every: float) -> None:
    ended = stopped_by_signals()
    trouble: str | None = None
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            shown = screen(view, store=settings.store, width=console.width, height=console.height, trouble=trouble)
            live.update(shown, refresh=True)
            if ended.wait(every):
                return
            try:
                view, trouble = looking.look(), None
            except OcrfleetError as error:  # it may be temporary
                trouble = str(error)
