"""What it took to read pages: kept apart from the outputs, since it differs from run to run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from ocrfleet.jobs import PageJob, Record


class Attempt(Record):
    """One try at a page."""

    page: int
    #: `done`, the reason of a failure, or where the page went
    outcome: str
    render_seconds: float | None = None
    recognise_seconds: float | None = None
    #: written by the engine
    tokens: int | None = None
    temperature: float | None = None


class RunRecord(Record):
    """The attempts at a job's pages by one worker."""

    schema_version: int = 1
    job: PageJob
    worker: str
    finished: float
    attempts: tuple[Attempt, ...]


@dataclass
class Try:
    """An attempt while it is made."""

    page: int
    #: from 1, of the page's own: deaths of workers don't count
    number: int
    #: closed when the page is with the engine
    making_ready: ExitStack
    facts: dict[str, float] = field(default_factory=dict)

    def done(self, outcome: str) -> Attempt:
        return Attempt.model_validate({"page": self.page, "outcome": outcome, **self.facts})
