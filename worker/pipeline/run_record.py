"""An attempt at a page while it is made; it becomes a part of the run record (ocrfleet/records/runs.py)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from ocrfleet.records.runs import Attempt


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
