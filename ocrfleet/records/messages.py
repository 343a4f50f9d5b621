"""The messages on the queue: intake, page and assembly jobs."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.records.base import SCHEMA_VERSION, Digest, DocumentId, Generation, PageNumber, Record, problems_of
from ocrfleet.records.priority import Priority

#: Pages that one job carries at most: a message can claim any number, and each of them costs memory.
MOST_PAGES = 1000
#: The last page that a key has room for (ocrfleet/keys.py).
_LAST_PAGE = 999_999


class Message(Record):
    """The only argument of a Celery task."""

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """Parse the argument of a task. Raises PermanentError for anything else than a message of this version."""
        try:
            return cls.model_validate(message)
        except ValidationError as error:
            raise PermanentError(
                Reason.INTERNAL_ERROR, f"not a {cls.__name__} of schema {SCHEMA_VERSION}: {problems_of(error)}"
            ) from error


class Routed(Record):
    """The profile that reads pages instead of their document's own one, because of a route or of a retry step.

    Fields that a route leaves at None are not sent: workers of 0.1 read such a message, too.
    """

    profile: str
    profile_digest: Digest
    #: scripts that the texts must be in (Judgement.scripts of the document's profile)
    scripts: tuple[str, ...] = ()
    #: retry steps up to and including the one that sent the pages here, over all profiles; None for a route
    rung: int | None = Field(default=None, ge=1)
    #: limits of the first attempt by this profile, from that retry step: tokens, and seconds in the engine
    max_tokens: int | None = Field(default=None, ge=1)
    deadline: float | None = Field(default=None, gt=0)
    #: the profiles that routed the pages to another, each with the number of the retry step. Pages return to none of them.
    sent_on: dict[str, int] | None = None


class PageJob(Message):
    """A range of pages of one document, in one generation. One message carries one job."""

    schema_version: Literal[1] = 1
    document: DocumentId
    generation: Generation
    queue: Priority
    first: PageNumber
    last: PageNumber
    #: the profile that reads these pages instead of the document's profile; the job is on this profile's queue
    routed: Routed | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_climbing(cls, job: Any) -> Any:
        """Read jobs of 0.1: their `climbing` names a profile for one attempt. The pages are now routed to that profile."""
        if not isinstance(job, dict) or "climbing" not in job:
            return job
        fields = {name: value for name, value in job.items() if name != "climbing"}
        return fields if job["climbing"] is None else fields | {"routed": job["climbing"]}

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError("a job's last page comes before its first")
        if self.last > _LAST_PAGE or self.last - self.first >= MOST_PAGES:
            raise ValueError(f"a job has {MOST_PAGES} pages at most, none of them beyond page {_LAST_PAGE}")
        return self


class AssemblyJob(Message):
    """Ask for the assembly of a document, in one generation."""

    schema_version: Literal[1] = 1
    document: DocumentId
    generation: Generation


class IntakeJob(Message):
    """Ask for the intake of an intake batch."""

    schema_version: Literal[1] = 1
    arrival: str = Field(pattern=r"^arrivals/")
