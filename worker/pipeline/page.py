"""A page while this worker works on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocrfleet.errors import Reason

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Faults
    from ocrfleet.records.documents import Manifest
    from ocrfleet.records.messages import PageJob
    from ocrfleet.records.pages import PageResult, RetryState
    from ocrfleet.records.runs import Attempt


@dataclass(eq=False)
class Page:
    """One page of a job: its document, number and profile, and the state of its attempts."""

    job: PageJob
    manifest: Manifest
    number: int
    #: from the ledger
    faults: Faults
    #: attempts at the pages of the job, for the run record
    attempts: list[Attempt]
    #: profiles that sent the page on by a retry step: the number of that step
    sent_on: dict[str, int]
    #: the last failed attempt by this worker's profile, of any worker; None before the first
    retry: RetryState | None = None
    #: the best text so far, by any profile
    best: PageResult | None = None
    #: whether the stored retry state was read
    recalled: bool = False
    #: retry steps that can't be made, or that would give the same result again
    unavailable: set[int] = field(default_factory=set)
    #: why the last attempt failed, by any profile; None before the first
    failed_with: Reason | None = None
    #: the last failure that gave no text
    fault: tuple[Reason, str] = (Reason.INTERNAL_ERROR, "there is no way to read it")

    @property
    def key(self) -> tuple[str, int, int]:
        """Document, generation and number: the arguments that identify the page in the store and the ledger."""
        return self.job.document, self.job.generation, self.number

    @property
    def steps_before(self) -> int:
        """Retry steps that were made before this worker's profile got the page."""
        return (self.job.routed.rung or 0) if self.job.routed is not None else 0
