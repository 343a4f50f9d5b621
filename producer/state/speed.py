"""Speed of workers, and the time that pages take at that speed.

The backlog limit, `status`, `top`, the leader's gauges and the estimates of a dry run all use these functions, so that they
agree. A worker's speed is its pages per busy second, that is per second with at least one page in hand. Pages per second
of uptime would count the seconds without any work, too: for workers that were idle half of the time, it would predict
twice the time that the next pages take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocrfleet.records.workers import WorkerState

#: Busy seconds after which a worker's own speed is used.
_MEASURED = 30.0


def is_measured(worker: WorkerState) -> bool:
    """Return whether a worker was busy for long enough to know its speed."""
    return worker.busy_seconds >= _MEASURED and worker.pages > 0


def speed(workers: Iterable[WorkerState], *, assumed: float) -> float:
    """Return the pages per second that these workers read while they have any; 0 without workers.

    `assumed` is the speed in pages per second of a worker that is not measured yet (OCRFLEET_PAGES_PER_SECOND).
    """
    return sum(worker.pages / worker.busy_seconds if is_measured(worker) else assumed for worker in workers)


def time_left(pages: Mapping[str, float], workers: Iterable[WorkerState], *, assumed: float) -> float:
    """Return the seconds until the workers have read these pages: those of the slowest profile.

    `pages` are numbers of pages by the digest of the profile that reads them: workers of other profiles leave them alone. A
    profile without workers takes the time of one worker, at `assumed` pages per second.
    """
    workers = list(workers)

    def seconds(digest: str, count: float) -> float:
        serving = [worker for worker in workers if worker.profile_digest == digest]
        return count / (speed(serving, assumed=assumed) or assumed)

    return max((seconds(digest, count) for digest, count in pages.items()), default=0.0)
