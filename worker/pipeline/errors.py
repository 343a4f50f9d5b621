"""How an attempt at a page, or the work on it, ends without a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrfleet.errors import OcrfleetError

if TYPE_CHECKING:
    from ocrfleet.records.messages import Routed


class SupersededError(OcrfleetError):
    """The page needs no work: another worker has it or is done with it, or its document was cancelled or deleted."""


class DrainingError(OcrfleetError):
    """The worker is leaving: the page goes back to the queue."""


class StepSkippedError(OcrfleetError):
    """The attempt is skipped: it needs a text layer, which is missing or rejected."""


class RoutedError(OcrfleetError):
    """The page goes to the queue of another profile. It has no record yet."""

    def __init__(self, routed: Routed) -> None:
        super().__init__(f"the page goes to profile {routed.profile}")
        self.routed = routed
