"""`ocrfleet top` on narrow and wide terminals: all values are shown, and no line is too long."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from ocrfleet.broker.ledger import RedisMemory
from ocrfleet.records.priority import Priority
from ocrfleet.records.workers import WorkerState
from producer.cli.render.top import screen
from producer.monitoring.fleet_snapshot import FleetSnapshot, PriorityBacklog, ProfileUse
from producer.monitoring.inventory import LIMIT, Inventory, WaitingDocuments
from producer.monitoring.top import TopView, WorkerRate


def worker(number: int, *, name: str = "gpu-node-{}.example.4711.a1b2c3d4") -> WorkerState:
    return WorkerState(
        worker=name.format(number),
        profile="deepseek-ocr-2",
        profile_digest="d" * 64,
        seconds=3600.0,
        pages=9_123 + number,
        tokens=12_345_678,
        busy_seconds=3476.0,
        starved_seconds=12.0,
    )


INVENTORY = Inventory(
    waiting={
        Priority.INTERACTIVE: WaitingDocuments(),
        Priority.BULK: WaitingDocuments(documents=LIMIT, paused=3, oldest=0.0),
    },
    arrivals={Priority.INTERACTIVE: 0, Priority.BULK: 12},
    oldest_arrival=dict.fromkeys(Priority, 0.0),
    undelivered=0,
    webhooks_waiting=4,
    webhooks_given_up=0,
    quarantined=0,
    paused=frozenset({"drafts"}),
)
CALM = replace(
    INVENTORY,
    waiting={queue: WaitingDocuments() for queue in Priority},
    arrivals=dict.fromkeys(Priority, 0),
    webhooks_waiting=0,
    paused=frozenset(),
)


def view(*workers: WorkerState, inventory: Inventory = INVENTORY, **changes: object) -> TopView:
    fleet = FleetSnapshot(
        taken=1_800_000_000.0,
        led=True,
        workers=workers,
        assumed_speed=2.5,
        backlog={
            Priority.INTERACTIVE: PriorityBacklog(waiting=0, queued=2, running=1, oldest=4.0),
            Priority.BULK: PriorityBacklog(waiting=1_000_000, queued=1_234, running=128, oldest=86_400.0),
        },
        active_pages={Priority.INTERACTIVE: {}, Priority.BULK: {}},
        profiles={"deepseek-ocr-2": ProfileUse(workers=len(workers), documents=17, unserved=0)},
        active=17,
        failed=0,
        inventory=inventory,
        redis=RedisMemory(used=123 << 20, most=1 << 30, evicted=0),
    )
    rates = {state.worker: WorkerRate(pages=2.61, tokens=3_400.0, starved=0.02) for state in workers}
    return TopView(fleet=replace(fleet, **changes), rates=rates)  # type: ignore[arg-type]


def lines(seen: TopView, width: int, *, height: int | None = None, trouble: str | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height or 50, force_terminal=False, highlight=False)
    console.print(screen(seen, store="s3://fleet/store", width=width, height=height, trouble=trouble))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [80, 160])
class TestAtEachWidth:
    def test_everything_is_there_and_no_line_is_too_long(self, width: int) -> None:
        shown = lines(view(worker(1), worker(2)), width)

        assert all(cell_len(line) <= width for line in shown), "\n".join(shown)
        text = "\n".join(shown)
        for words in (
            *("s3://fleet/store", "08:00:00 UTC", "Speed", "5.22", "453,600", "6,800", "2%"),
            *("Backlog", "interactive", "bulk", "1,000,000", "10,000+", "1,234", "128", "24.0 h", "4 s", "53.0 h"),
            *("Elsewhere", "17", "12", "123 MiB of 1,024"),
            *("Problems", "3 documents of paused collections"),
            *("Workers", "9,124", "9,125", "deepseek-ocr-2", "2.61", "3,400"),
        ):
            assert words in text, f"{words!r} is not in\n{text}"

    def test_each_problem_is_shown_with_its_remedy(self, width: int) -> None:
        bad = replace(INVENTORY, quarantined=2, undelivered=1, webhooks_given_up=5)
        seen = view(
            worker(1),
            inventory=bad,
            profiles={"deepseek-ocr-2": ProfileUse(workers=1, documents=17, unserved=7)},
            failed=9,
        )
        redis = RedisMemory(used=900 << 20, most=1 << 30, evicted=33)

        text = "\n".join(lines(replace(seen, fleet=replace(seen.fleet, redis=redis)), width))

        for words in (
            *("7 active documents wait for deepseek-ocr-2", "2 pages with which workers died: ocrfleet quarantine"),
            *("1 documents whose results", "5 webhooks given up", "33 keys evicted by Redis"),
            *("pages failed so far", "Redis has 88% of its maxmemory"),
        ):
            assert words in text, f"{words!r} is not in\n{text}"

    def test_a_fleet_without_workers_shows_how_to_start_one(self, width: int) -> None:
        shown = lines(view(inventory=CALM), width)

        text = "\n".join(shown)
        assert "start one: ocrfleet worker" in text
        assert "nothing" in text
        # Without a speed there is no estimate of the remaining time
        assert "53.0 h" not in text
        assert all(cell_len(line) <= width for line in shown)

    def test_a_fleet_without_a_leader_is_a_problem(self, width: int) -> None:
        text = "\n".join(lines(view(worker(1), inventory=CALM, led=False), width))

        assert "no process leads: start ocrfleet serve or dispatch" in text
        assert "nothing" not in text

    def test_more_workers_than_lines_are_counted(self, width: int) -> None:
        shown = lines(view(*(worker(number) for number in range(200))), width, height=40)

        assert len(shown) <= 40, "\n".join(shown)
        assert any("more" in line and "…" in line for line in shown)

    def test_names_are_only_shown(self, width: int) -> None:
        seen = view(worker(1, name="\x1b[31mred[bold]" + "x" * 200 + "{}"))

        shown = lines(seen, width)

        assert "\x1b" not in "".join(shown)
        assert all(cell_len(line) <= width for line in shown)

    def test_an_old_view_is_marked(self, width: int) -> None:
        text = "\n".join(lines(view(worker(1)), width, trouble="Redis can't be used"))

        assert "not up to date: Redis can't be used" in text


def test_a_wide_terminal_needs_fewer_lines() -> None:
    seen = view(worker(1))
    assert len(lines(seen, 160)) < len(lines(seen, 80))
