"""Schedule of faults (kind, time, target) from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    #: SIGKILL, to the process and to what it started
    KILL = "kill"
    #: SIGTERM: it drains, and is started again
    TERMINATE = "terminate"
    #: SIGSTOP, later SIGCONT
    STOP = "stop"
    #: connections break, and none can be made for a while
    CUT = "cut"
    DELAY = "delay"
    HALF_CLOSE = "half_close"
    #: everything in Redis is gone
    WIPE = "wipe"
    #: the store takes nothing for a while
    FULL = "full"


#: Weights of kinds and targets.
WEIGHTS: Mapping[tuple[Kind, str], int] = {
    (Kind.KILL, "engine"): 24,
    (Kind.KILL, "worker"): 8,
    (Kind.TERMINATE, "worker"): 4,
    (Kind.STOP, "engine"): 10,
    (Kind.KILL, "dispatch"): 5,
    (Kind.STOP, "dispatch"): 4,
    (Kind.KILL, "clerk"): 4,
    (Kind.KILL, "watch"): 2,
    (Kind.KILL, "sweep"): 2,
    (Kind.KILL, "redis"): 4,
    (Kind.STOP, "redis"): 2,
    (Kind.WIPE, "redis"): 3,
    (Kind.CUT, "redis"): 8,
    (Kind.DELAY, "redis"): 4,
    (Kind.HALF_CLOSE, "redis"): 4,
    (Kind.KILL, "store"): 1,
    (Kind.STOP, "store"): 2,
    (Kind.FULL, "store"): 1,
    (Kind.CUT, "store"): 6,
    (Kind.DELAY, "store"): 4,
    (Kind.HALF_CLOSE, "store"): 4,
}


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    target: str
    #: seconds after the one before
    after: float
    #: seconds that it lasts, where it lasts
    lasts: float
    #: which of several processes it hits
    which: int

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


def schedule(seed: int, *, pause: float) -> Iterator[Fault]:
    """Yield faults without end, `pause` seconds from one to the next on average. The same seed gives the same faults."""
    dice = random.Random(seed)  # noqa: S311 - nothing secret
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        ((kind, target),) = dice.choices(kinds, weights)
        yield Fault(
            kind=kind,
            target=target,
            after=dice.uniform(0, 2 * pause),
            # Some outlast a lease, most don't.
            lasts=dice.choice((0.2, 0.5, 1.0, 2.0, 8.0)),
            which=dice.randrange(1 << 16),
        )
