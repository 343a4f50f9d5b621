"""How an attempt or a page's visit ends early."""

from __future__ import annotations

from ocrfleet.errors import (
    OcrfleetError,
)


class SupersededError(OcrfleetError):
    """Nothing is to be done: another worker reads the page or did, or its document was cancelled or deleted."""


class DrainingError(OcrfleetError):
    """The worker is leaving: the page goes to somebody else."""


class SkippedError(OcrfleetError):
    """The attempt can't be made, as that at a text layer which is not there or can't be trusted."""
