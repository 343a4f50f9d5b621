"""Run records: the attempts behind the pages of a job. Apart from the outputs, because they differ from run to run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from ocrfleet.records.base import Record
from ocrfleet.records.messages import PageJob


class Attempt(Record):
    """One attempt at a page."""

    page: int
    #: number of the retry step, over all profiles; 0 is the first attempt
    rung: int = 0
    #: `done`, the reason of a failure, which profile the page went to, or `skipped` for a step that could not be tried
    outcome: str
    #: the failure in words, or why the step was skipped
    detail: str | None = None
    render_seconds: float | None = None
    recognise_seconds: float | None = None
    #: written by the engine
    tokens: int | None = None
    temperature: float | None = None


class RunRecord(Record):
    """The attempts of one worker at the pages of a job."""

    schema_version: int = 1
    job: PageJob
    worker: str
    finished: float
    attempts: tuple[Attempt, ...]


@dataclass
class RunningAttempt:
    """An attempt while it is made."""

    page: int
    rung: int
    #: closed when the engine gets the page
    preparing: ExitStack
    #: seconds, tokens and temperature, as Attempt names them
    facts: dict[str, float] = field(default_factory=dict)

    def ended(self, outcome: str, detail: str | None = None) -> Attempt:
        """Return the record of this attempt."""
        fields = {"page": self.page, "rung": self.rung, "outcome": outcome, "detail": detail}
        return Attempt.model_validate(fields | self.facts)
