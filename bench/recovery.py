"""Seconds that a fleet takes to recover from a single fault, with real processes as in tests/chaos.

    python -m bench.recovery [--rounds 3] [--flavour redis|valkey]

Three workers with a lease of five seconds read many pages. For each kind of fault, the pages in flight are noted and the fault
is injected; faults that last end after two seconds. The fleet has recovered when each of these pages has a record, or, for a
killed leader, when there is a new leader. For a worker that is stopped for longer than its lease, the time starts at the stop.
Prints median and maximum in seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.chaos.faults import Fault, Kind
from tests.support.chaos.scene import Poison, Scene
from tests.support.waiting import until

FAULTS = [
    Fault(Kind.KILL, "engine", 0, 0, 0),
    Fault(Kind.KILL, "worker", 0, 0, 0),
    Fault(Kind.STOP, "engine", 0, 15, 0),
    Fault(Kind.KILL, "redis", 0, 2, 0),
    Fault(Kind.WIPE, "redis", 0, 0, 0),
    Fault(Kind.CUT, "redis", 0, 2, 0),
    Fault(Kind.HALF_CLOSE, "redis", 0, 0, 0),
    Fault(Kind.KILL, "store", 0, 2, 0),
    Fault(Kind.CUT, "store", 0, 2, 0),
    Fault(Kind.FULL, "store", 0, 2, 0),
]
#: Seconds between two faults, so that the fleet is busy at each fault.
CALM = 4.0
LONGEST = 120.0


def recovery(scene: Scene, strike: Callable[[], object], recovered: Callable[[], bool]) -> float:
    begun = time.monotonic()
    strike()
    while not recovered():
        if time.monotonic() - begun > LONGEST:
            sys.exit(f"not recovered after {LONGEST:g} seconds\n{scene.logs()}")
        scene.mend_due()
        time.sleep(0.05)
    taken = time.monotonic() - begun
    while scene.struck:
        scene.mend_due()
        time.sleep(0.05)
    return taken


def one(scene: Scene, fault: Fault) -> float:
    """Return the seconds from a fault until the pages in flight have records."""
    until(lambda: len(scene.leased()) >= 2, seconds=LONGEST, otherwise=scene.logs)
    pages = scene.leased()
    return recovery(scene, lambda: scene.strike(fault), lambda: scene.recorded(pages))


def leader(scene: Scene) -> float:
    """Return the seconds from the death of the leader until there is a new leader."""
    name = "ocrfleet:dispatcher"
    until(lambda: scene.redis.client.exists(name), seconds=LONGEST)
    held = scene.redis.client.get(name)

    def killed() -> None:
        for which in (0, 1):  # it is unknown which of the two is the leader
            scene.strike(Fault(Kind.KILL, "dispatch", 0, 0, which))

    return recovery(scene, killed, lambda: scene.redis.client.get(name) not in {None, held})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flavour", choices=["redis", "valkey"], default="redis")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ocrfleet-bench-") as folder:
        scene = Scene(Path(folder), flavour=told.flavour, books=400 * told.rounds, poison=Poison(), seconds_a_page=0.3)
        try:
            scene.upload()
            scene.start()
            taken: dict[str, list[float]] = {}
            for _ in range(told.rounds):
                for fault in FAULTS:
                    time.sleep(CALM)
                    taken.setdefault(str(fault), []).append(one(scene, fault))
                time.sleep(CALM)
                taken.setdefault("kill leader", []).append(leader(scene))
        finally:
            scene.close()
    print(f"{'fault':<20} {'median':>7} {'worst':>7}   seconds, of {told.rounds}")
    for name, seconds in taken.items():
        print(f"{name:<20} {statistics.median(seconds):>7.1f} {max(seconds):>7.1f}")


if __name__ == "__main__":
    main()
