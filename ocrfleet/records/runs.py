"""Run records: the attempts behind the pages of a job. Apart from the outputs, because they differ from run to run."""

from __future__ import annotations

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
    #: Unix time
    finished: float
    attempts: tuple[Attempt, ...]
