"""Progress and result of a run: counts while it runs, and the outcome of each document."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from ocrfleet.records.documents import DocumentStatus, ReviewPage
from ocrfleet.records.workers import WorkerState
from producer.intake.discover import Skipped

#: Seconds over which the speed is measured.
_WINDOW = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A document that has ended and was delivered."""

    name: str
    document: str
    status: DocumentStatus
    total: int
    done: int
    #: pages whose text is the PDF's text layer: no engine read them
    text_layer: int
    #: number of pages with a warning, by its code
    warnings: dict[str, int]
    #: pages that are done and that a person should look at
    review: tuple[ReviewPage, ...]
    #: (page or None for the whole document, reason, detail)
    failures: tuple[tuple[int | None, str, str], ...]
    files: tuple[Path, ...]


@dataclass
class Tally:
    """Progress of the run. Pages are counted once, even if a document has several names."""

    documents: int = 0
    documents_ended: int = 0
    pages: int = 0
    done: int = 0
    failed: int = 0
    #: pages whose result was in the store already, which were not recognised again
    reused: int = 0
    discovering: bool = True
    #: a note beside the counts: a full disk, a server that is restarted, the end
    note: str | None = None
    pages_per_second: float = 0.0
    seconds: float = 0.0
    _speed: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def waiting(self) -> int:
        return max(0, self.pages - self.done - self.failed)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last page, at the speed of this run in its last minute by the clock; None while it is unknown.

        `producer/state/speed.py` estimates the time of a fleet from what its workers report. A run is the only user of its
        workers, so its clock says more: also the time that is lost between pages counts.
        """
        return self.waiting / self.pages_per_second if self.pages_per_second else None

    def measure(self, seconds: float, recognised: int) -> None:
        """Record the number of pages that this run has finished at a time, in seconds after its start."""
        self.seconds = seconds
        self._speed.append((seconds, recognised))
        while len(self._speed) > 2 and self._speed[1][0] < seconds - _WINDOW:  # noqa: PLR2004 - a first and a last
            self._speed.popleft()
        (begun, before), (now, after) = self._speed[0], self._speed[-1]
        self.pages_per_second = (after - before) / (now - begun) if now > begun else 0.0


@dataclass
class Report:
    """The result of a run."""

    tally: Tally
    skipped: list[Skipped] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    interrupted: int | None = None
    #: the last states of the workers, if the order asks for them
    workers: list[WorkerState] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        """Whether every page of every document is done and delivered."""
        left_out = any(item.named for item in self.skipped)
        return self.interrupted is None and not left_out and not any(item.failures for item in self.ended)
