"""Renders the view of `ocrfleet top`, for terminals of eighty columns or of twice as many."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from producer.monitoring.inventory import LIMIT
from producer.state.leader import NO_LEADER
from producer.text import duration, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from producer.monitoring.fleet_snapshot import FleetSnapshot, PriorityBacklog
    from producer.monitoring.top import TopView

#: The fewest columns of a terminal with tables side by side.
_WIDE = 120
#: Lines of all panels but the workers', stacked and side by side.
_OTHER_LINES = 24
_LEAST_WORKERS = 3
_DAY = 24 * 3600
#: Share of the time for which an engine is idle while pages wait, and of Redis' memory, above which the value is marked.
_STARVED, _FULL = 0.05, 0.8
_MIB = 1 << 20


def screen(view: TopView, *, store: str, width: int, height: int | None = None, trouble: str | None = None) -> Group:
    """Render a view for a terminal of this size; `lines` is None elsewhere. `trouble` is why the view may be old."""
    head = Text.assemble(
        ("ocrfleet top", "bold"),
        "  ",
        (printable(store), "dim"),
        "  ",
        f"{datetime.fromtimestamp(view.fleet.taken, UTC):%H:%M:%S} UTC",
    )
    head.truncate(width, overflow="ellipsis")
    parts: list[RenderableType] = [head]
    if trouble is not None:
        parts.append(Text(f"not up to date: {printable(trouble)}", style="red"))
    tables = [
        _panel("Speed", _speed(view)),
        _panel("Backlog", _backlog(view.fleet)),
        _panel("Elsewhere", _elsewhere(view.fleet)),
    ]
    parts.append(_beside(tables[:2], [tables[2]], width))
    wrong = _wrong(view)
    parts.append(_panel("Problems", Group(*wrong) if wrong else Text("nothing", style="green")))
    most = len(view.fleet.workers) if height is None else max(_LEAST_WORKERS, height - _OTHER_LINES - len(wrong))
    parts.append(_panel("Workers", _workers(view, most)))
    return Group(*parts)


def _beside(first: list[Panel], second: list[Panel], width: int) -> RenderableType:
    """Return panels in one row if the terminal is wide enough, otherwise in two."""
    rows = [[*first, *second]] if width >= _WIDE else [first, second]
    return Group(*(_row(row) for row in rows))


def _row(panels: list[Panel]) -> Table:
    grid = Table.grid(expand=True, pad_edge=False)
    for _ in panels:
        grid.add_column(ratio=1)
    grid.add_row(*panels)
    return grid


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(
        content, title=f"[bold]{title}[/]", title_align="left", box=box.ROUNDED, border_style="dim", padding=(0, 1)
    )


def _table(*headings: str, first: int = 1) -> Table:
    """Return a table with text in the first columns and numbers in the others."""
    table = Table(box=None, header_style="dim", pad_edge=False, expand=True)
    for number, heading in enumerate(headings):
        words = number < first
        table.add_column(
            heading,
            justify="left" if words else "right",
            overflow="ellipsis",
            no_wrap=True,
            ratio=1 + first - number if words else None,
        )
    return table


def _speed(view: TopView) -> Table:
    rate, fleet = view.rate, view.fleet
    facts = [
        ("workers", _number(len(fleet.workers))),
        ("pages a second", f"{rate.pages:.2f}"),
        ("pages a day, while busy", _number(round(fleet.speed * _DAY))),
        ("tokens a second", _number(round(rate.tokens))),
        ("idle while pages wait", _share(rate.starved, _STARVED)),
        ("pages failed so far", _number(view.fleet.failed)),
    ]
    return _facts(facts)


def _backlog(fleet: FleetSnapshot) -> Table:
    lanes = [(queue.value, counts, fleet.seconds_left(queue)) for queue, counts in fleet.backlog.items()]
    table = _table("pages", *(name for name, _, _ in lanes))
    rows: list[tuple[str, list[str]]] = [
        ("waiting", [_number(lane.waiting) for _, lane, _ in lanes]),
        ("queued", [_number(lane.queued) for _, lane, _ in lanes]),
        ("running", [_number(lane.running) for _, lane, _ in lanes]),
        ("oldest waits", [_age(lane) for _, lane, _ in lanes]),
        ("done in about", [duration(seconds) if lane.pages and fleet.workers else "-" for _, lane, seconds in lanes]),
    ]
    for name, values in rows:
        table.add_row(name, *values)
    return table


def _elsewhere(fleet: FleetSnapshot) -> Table:
    inventory, redis = fleet.inventory, fleet.redis
    waits = inventory.waiting.values()
    used = f"{redis.used / _MIB:,.0f} MiB" + (f" of {redis.most / _MIB:,.0f}" if redis.most else "")
    return _facts(
        [
            ("documents active", _number(fleet.active)),
            ("documents waiting", _at_least(sum(one.documents for one in waits))),
            ("intake batches waiting", _at_least(sum(inventory.arrivals.values()))),
            ("webhooks waiting", _at_least(inventory.webhooks_waiting)),
            ("pages in quarantine", _at_least(inventory.quarantined)),
            ("Redis' memory", used),
        ]
    )


def _workers(view: TopView, most: int) -> RenderableType:
    workers = view.fleet.workers
    if not workers:
        return Text("no worker is registered at this Redis; start one: ocrfleet worker", style="yellow")
    table = _table("worker", "profile", "pages", "pages/s", "tokens/s", "idle", first=2)
    for state in workers[:most]:
        rate = view.rates[state.worker]
        table.add_row(
            # Host and process: the rest only distinguishes it from earlier workers.
            Text(printable(state.worker.rpartition(".")[0] or state.worker)),
            Text(printable(state.profile)),
            _number(state.pages),
            f"{rate.pages:.2f}",
            _number(round(rate.tokens)),
            _share(rate.starved, _STARVED),
        )
    if len(workers) <= most:
        return table
    return Group(table, Text(f"… and {len(workers) - most} more", style="dim"))


def _wrong(view: TopView) -> list[Text]:
    """Return a line for each problem that needs a person, with its remedy."""
    fleet, inventory = view.fleet, view.fleet.inventory
    redis = fleet.redis
    lines = [
        (
            f"{use.unserved} active documents wait for {printable(profile)}, which no worker serves: ocrfleet status",
            "red",
        )
        for profile, use in fleet.profiles.items()
        if use.unserved
    ]
    paused = sum(one.paused for one in inventory.waiting.values())
    facts: list[tuple[object, str, str]] = [
        (inventory.quarantined, "{} pages with which workers died: ocrfleet quarantine", "red"),
        (inventory.undelivered, "{} documents whose results can't be delivered: ocrfleet status ID", "red"),
        (inventory.webhooks_given_up, "{} webhooks given up: check their receivers", "red"),
        (redis.evicted, "{} keys evicted by Redis: give it memory, and maxmemory-policy noeviction", "red"),
        (paused, "{} documents of paused collections: ocrfleet resume --collection NAME", "yellow"),
    ]
    lines += [(words.format(count), style) for count, words, style in facts if count]
    if not view.fleet.led:
        lines.insert(0, (NO_LEADER, "red"))
    if redis.most and redis.used > _FULL * redis.most:
        lines.append((f"Redis has {redis.used / redis.most:.0%} of its maxmemory in use", "red"))
    return [Text(words, style=style) for words, style in lines]


def _facts(facts: Iterable[tuple[str, Any]]) -> Table:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(justify="right", no_wrap=True)
    for name, value in facts:
        table.add_row(Text(name), value)
    return table


def _age(backlog: PriorityBacklog) -> str:
    return duration(backlog.oldest) if backlog.oldest else "-"


def _number(count: int) -> str:
    return f"{count:,}"


def _at_least(count: int) -> str:
    return f"{count:,}{'+' * (count >= LIMIT)}"


def _share(share: float, limit: float) -> Text:
    return Text(f"{share:.0%}", style="yellow" if share > limit else "")
