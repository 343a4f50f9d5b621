"""Chaos: processes and servers are killed, stopped, disconnected and wiped. Every page has an outcome, and the outputs equal those
of an undisturbed run.

The default is a short run with a fixed seed. `make chaos` is the long run; OCRFLEET_CHAOS_* set its length and seed.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ocrfleet import keys
from tests.support.chaos.faults import Fault, schedule
from tests.support.chaos.scene import PAGES_EACH, Poison, Scene
from tests.support.waiting import rest, until

_MISSING = object()


@dataclass(frozen=True)
class Plan:
    """Size of a run."""

    seed: int
    books: int
    faults: int
    #: seconds from one fault to the next on average
    pause: float
    #: maximum seconds of the run
    most: float

    @classmethod
    def told(cls) -> Plan:
        def number(name: str, default: float) -> float:
            return float(os.environ.get(f"OCRFLEET_CHAOS_{name}", default))

        return cls(
            seed=int(number("SEED", 7)),
            books=int(number("BOOKS", 30)),
            faults=int(number("FAULTS", 25)),
            pause=number("PAUSE", 1.0),
            most=number("SECONDS", 400),
        )

    def poison(self) -> Poison:
        """About 1 % of the pages are harmful; the same ones for every seed."""
        pages = self.books * PAGES_EACH
        few = max(1, pages // 4000)
        spread = [number * 37 % pages for number in range(4 * few)]
        return Poison(
            crash=tuple(spread[:few]),
            hang=tuple(spread[few : 2 * few]),
            fail=tuple(spread[2 * few : 3 * few]),
            loop=tuple(spread[3 * few :]),
            bombs=1,
        )


@dataclass
class Story:
    """Results of a run."""

    seconds: float = 0.0
    results: dict[str, bytes] = field(default_factory=dict)
    recognised: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    struck: list[Fault] = field(default_factory=list)

    def again(self, poison: Poison) -> int:
        """How often harmless pages were recognised again."""
        return sum(count - 1 for number, count in self.recognised.items() if poison.reason(number) is None)


def play(folder: Path, flavour: str, plan: Plan, poison: Poison, faults: Iterator[Fault]) -> Story:
    """Run a fleet on the books with these faults, until every document has ended and the fleet has stopped."""
    folder.mkdir()
    scene = Scene(folder, flavour=flavour, books=plan.books, poison=poison, seconds_a_page=0.05)
    story = Story()
    try:
        scene.upload()
        begun = time.monotonic()
        scene.start()
        harm(scene, story, faults, until_=begun + plan.most)
        until(
            lambda: scene.ended() == len(scene.names()), seconds=plan.most, pause=0.2, otherwise=lambda: unended(scene)
        )
        story.seconds = time.monotonic() - begun
        until(scene.idle, seconds=90, pause=0.2, otherwise=lambda: busy(scene))
        codes = scene.stop()
        story.results = scene.results()
        story.recognised = Counter(scene.recognised())
        assert codes == {}, scene.logs()
        assert scene.left_over() == []
        with pytest.MonkeyPatch.context() as monkeypatch:
            assert scene.temporary_files(monkeypatch) == []
        assert scene.redis.client.zcard(keys.UNACKED_INDEX) == 0
        assert scene.redis.client.keys("ocrfleet:ledger:*") == []
    finally:
        scene.close()
    return story


def harm(scene: Scene, story: Story, faults: Iterator[Fault], *, until_: float) -> None:
    """Inject the faults one after the other while there are pages to read."""
    pages = scene.books * PAGES_EACH
    for fault in faults:
        if len(set(scene.recognised())) == pages:
            break
        due = time.monotonic() + fault.after
        while time.monotonic() < due:
            scene.mend_due()
            rest(0.05)
        if time.monotonic() > until_:
            break
        if scene.strike(fault):
            story.faults[str(fault)] += 1
            story.struck.append(fault)
    while scene.struck:
        scene.mend_due()
        rest(0.05)


def unended(scene: Scene) -> str:
    done = {key.removesuffix(".status.json") for key in scene.results()}
    return f"{sorted(set(scene.names()) - done)[:5]} have not ended\n{scene.logs()}"


def busy(scene: Scene) -> str:
    return f"waiting {scene.kept(keys.WAITING)}, active {scene.kept(keys.ACTIVE)}\n{scene.logs()}"


def problems(scene_names: list[str], plan: Plan, story: Story, calm: Story) -> list[str]:
    """Return the differences between a run with faults and one without."""
    poison = plan.poison()
    found = []
    for name in scene_names:
        pointer = json.loads(story.results[f"{name}.status.json"])
        failed = {failure["page"]: failure["reason"] for failure in pointer["failures"]}
        if pointer["done"] + len(failed) != pointer["total"]:
            found.append(f"{name}: {pointer['done']} done and {len(failed)} failed are not {pointer['total']}")
        if failed != expected(name, poison):
            found.append(f"{name}: failed {failed}, not {expected(name, poison)}")
        found += [
            f"{name}.{extension} differs from that of the calm run"
            for extension in ("md", "json")
            if story.results.get(f"{name}.{extension}", _MISSING) != calm.results.get(f"{name}.{extension}")
        ]
    if len(story.results) != len(calm.results):
        found.append(f"{len(story.results)} results, {len(calm.results)} in the calm run")
    return found


def expected(name: str, poison: Poison) -> dict[int, str]:
    """Return which pages of a document must fail, and for what reason."""
    if name.startswith("bomb"):
        return {1: "render_memory"}
    numbers = Scene.numbers(int(name.removesuffix(".tif")))
    reasons = {page: poison.reason(number) for page, number in enumerate(numbers, start=1)}
    return {page: reason for page, reason in reasons.items() if reason is not None}


@pytest.mark.timeout(0)
def test_without_faults_each_page_is_read_once(tmp_path: Path) -> None:
    plan = Plan.told()
    story = play(tmp_path / "calm", "redis", plan, Poison(), iter(()))
    assert set(story.recognised.values()) == {1}
    assert sum(story.recognised.values()) == plan.books * PAGES_EACH


@pytest.mark.timeout(0)
@pytest.mark.parametrize("flavour", ["redis", "valkey"])
def test_no_page_is_lost_under_any_sequence_of_faults(
    tmp_path: Path, flavour: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan.told()
    told: dict[str, Any] = {"seed": plan.seed, "pages": plan.books * PAGES_EACH}
    print(json.dumps(told))  # noqa: T201 - a failure shows its seed
    # Given a run without faults
    calm = play(tmp_path / "calm", flavour, plan, plan.poison(), iter(()))
    # When the same books are read with faults
    faults = schedule(plan.seed, pause=plan.pause)
    story = play(tmp_path / "chaos", flavour, plan, plan.poison(), (next(faults) for _ in range(plan.faults)))
    # Then only harmful pages failed, and every output is the same
    names = [f"{number:05}.tif" for number in range(plan.books)] + ["bomb-0000.png"]
    assert problems(names, plan, story, calm) == []
    told |= {
        "faults": sum(story.faults.values()),
        "of each kind": dict(story.faults.most_common()),
        "seconds": round(story.seconds),
        "calm seconds": round(calm.seconds),
        "times as long": round(story.seconds / calm.seconds, 2),
        "pages recognised again": story.again(plan.poison()),
        "for each fault": round(story.again(plan.poison()) / max(1, sum(story.faults.values())), 2),
        "most for one page": max(story.recognised.values()),
        "median": statistics.median(story.recognised.values()),
    }
    with capsys.disabled():
        print(f"\n{flavour}: {json.dumps(told, indent=1)}")  # noqa: T201
