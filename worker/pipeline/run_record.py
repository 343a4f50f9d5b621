"""What it took to read pages: kept apart from the outputs, since it differs from run to run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from ocrfleet.records.base import Record
from ocrfleet.records.messages import PageJob


class Attempt(Record):
    """One try at a page."""

    page: int
    #: of the ladder; 0 is the profile as it stands
    rung: int = 0
    #: `done`, the reason of a failure, where the page went, or `skipped` for a rung that could not be tried
    outcome: str
    #: what was seen, or why it was skipped
    detail: str | None = None
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
    #: of the ladder
    rung: int
    #: closed when the page is with the engine
    making_ready: ExitStack
    facts: dict[str, float] = field(default_factory=dict)

    def done(self, outcome: str, detail: str | None = None) -> Attempt:
        told = {"page": self.page, "rung": self.rung, "outcome": outcome, "detail": detail}
        return Attempt.model_validate(told | self.facts)
