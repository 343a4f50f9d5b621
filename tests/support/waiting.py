"""Waiting in tests: one time scale, by which every wait, timeout and lease is multiplied.

A test says how many seconds something may take on a machine that has nothing else to do. OCRFLEET_TEST_TIME_SCALE says how
much slower this one is; by default it follows from the load and from the tests that run at the same time. No test asserts
how long something took: what must not be waited for lasts longer than the test may (`FOREVER`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, MutableMapping
from typing import TypeVar

VARIABLE = "OCRFLEET_TEST_TIME_SCALE"
#: Seconds that a test may take, before they are scaled.
TEST_SECONDS = 300.0
#: Seconds, longer than any test may take at any scale.
FOREVER = 1_000_000.0

_T = TypeVar("_T")


def measured(tests_at_once: int = 1) -> float:
    """Return the load factor of this machine: runnable processes per core, at least 1."""
    cores = len(os.sched_getaffinity(0))
    return max(1.0, (os.getloadavg()[0] + tests_at_once) / cores)


def set_scale(environment: MutableMapping[str, str], tests_at_once: int) -> None:
    """Set the scale for a whole run and its processes, if it is not set."""
    environment.setdefault(VARIABLE, f"{measured(tests_at_once):.2f}")


def scaled(seconds: float) -> float:
    """Return seconds of an idle machine as seconds of this one."""
    return seconds * float(os.environ.get(VARIABLE) or measured())


def until(
    condition: Callable[[], _T | None],
    *,
    seconds: float = 60,
    pause: float = 0.05,
    meanwhile: Callable[[], object] = bool,
    otherwise: Callable[[], object] = str,
) -> _T:
    """Wait until a condition is true, for at most the scaled seconds; return its result.

    Between two tries it calls `meanwhile` and pauses. Raises AssertionError with what `otherwise` says.
    """
    deadline = time.monotonic() + scaled(seconds)
    while not (met := condition()):
        assert time.monotonic() < deadline, f"it did not happen: {otherwise()}"
        meanwhile()
        time.sleep(pause)
    return met


def rest(seconds: float) -> None:
    """Wait for the scaled seconds, to check that something does not happen."""
    time.sleep(scaled(seconds))
