"""The producer's own errors."""

from __future__ import annotations

from ocrfleet.errors import OcrfleetError

EXIT_DONE, EXIT_INCOMPLETE, EXIT_USAGE, EXIT_UNABLE = 0, 1, 2, 3


class UnanswerableError(OcrfleetError):
    """No index answers this question, or it is malformed."""


class ConflictError(OcrfleetError):
    """The document is not in a state in which that can be done."""


class UsageError(OcrfleetError):
    """The command can't be carried out as it was given."""


class DeliveryError(OcrfleetError):
    """An output can't be written where it was asked for."""


class OccupiedError(DeliveryError):
    """Something that ocrfleet did not write is where an output would go."""
