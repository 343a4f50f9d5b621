"""The messages on the queue: intake, page and assembly jobs."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.base import (
    SCHEMA_VERSION,
    Digest,
    DocumentId,
    Generation,
    PageNumber,
    Priority,
    Record,
    problems_of,
)


class Message(Record):
    """What a task gets as its only argument."""

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """Parse a task's argument. Raises PermanentError for anything that is no such message of this version."""
        try:
            return cls.model_validate(message)
        except ValidationError as error:
            raise PermanentError(
                Reason.INTERNAL_ERROR, f"not a {cls.__name__} of schema {SCHEMA_VERSION}: {problems_of(error)}"
            ) from error


class Routed(Record):
    """Another profile, that a rule or a rung of the one before sends a page to."""

    profile: str
    profile_digest: Digest
    #: of the profile before: what its texts must be in (Judgement.scripts)
    scripts: tuple[str, ...] = ()


class Climbing(Routed):
    """Another profile that makes one attempt at a page, as a rung of the ladder of the profile that reads it says."""

    #: of that ladder, from 1
    rung: int = Field(ge=1)
    #: limits of the attempt: tokens, and seconds in the engine
    max_tokens: int | None = Field(default=None, ge=1)
    deadline: float | None = Field(default=None, gt=0)


class PageJob(Message):
    """What one message carries: a range of one document's pages, in one generation."""

    schema_version: Literal[1] = 1
    document: DocumentId
    generation: Generation
    queue: Priority
    first: PageNumber
    last: PageNumber
    #: who reads these pages instead of the document's own profile
    routed: Routed | None = None
    #: who makes the next attempt at these pages, and only that one
    climbing: Climbing | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError("a job's last page comes before its first")
        return self

    @property
    def sent_to(self) -> Routed | None:
        """Whose queue it is on; None for that of the document's own profile."""
        return self.climbing or self.routed


class AssemblyJob(Message):
    """Ask for the assembly of a document, in one generation."""

    schema_version: Literal[1] = 1
    document: DocumentId
    generation: Generation


class IntakeJob(Message):
    """Ask for the intake of an arrival."""

    schema_version: Literal[1] = 1
    arrival: str = Field(pattern=r"^arrivals/")
