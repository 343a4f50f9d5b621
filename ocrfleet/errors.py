"""The tree of errors. The class of an error decides what happens next: fail, retry, or stop the worker."""

from __future__ import annotations

from enum import StrEnum

#: Exit code of a worker that broke: its supervisor restarts it (EX_SOFTWARE of sysexits.h).
EXIT_BROKEN = 70
#: Exit code of a process that can't start with its configuration: it is not restarted (EX_CONFIG).
EXIT_CONFIGURATION = 78


class Reason(StrEnum):
    """Reason why a page is not `done`, or why a document has no pages. Part of the outputs: never rename one."""

    NEEDS_PASSWORD = "needs_password"  # noqa: S105 - a reason, not a secret
    EMPTY_FILE = "empty_file"
    NO_PAGES = "no_pages"
    NO_SUCH_PAGES = "no_such_pages"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    SOURCE_CHANGED = "source_changed"
    SOURCE_MISSING = "source_missing"
    RENDER_CRASHED = "render_crashed"
    RENDER_DEADLINE = "render_deadline"
    RENDER_MEMORY = "render_memory"
    RENDER_BUDGET = "render_budget"
    ENGINE_FAILED = "engine_failed"
    ENGINE_DEADLINE = "engine_deadline"
    WORKER_DIED = "worker_died"
    INTERNAL_ERROR = "internal_error"
    # Verdicts on a text of an engine (worker/pipeline/verdict.py). The text is kept with the page, which is not done.
    TRUNCATED = "truncated"
    REPETITION = "repetition"
    EMPTY = "empty"
    INVENTED = "invented"
    WRONG_SCRIPT = "wrong_script"
    UNSUPPORTED_SCRIPT = "unsupported_script"
    UNPARSABLE = "unparsable"
    NO_TEXT_LAYER = "no_text_layer"


class OcrfleetError(Exception):
    """Base class of all errors of ocrfleet."""


class PermanentError(OcrfleetError):
    """The input is at fault: a retry gives the same result. `detail` says what a person can do."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class PageFaultError(OcrfleetError):
    """The page is at fault, and another attempt may succeed: a crash, a deadline, a lack of memory."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TransientError(OcrfleetError):
    """The store or the broker is away: wait, then retry. Not counted as an attempt."""


class FatalError(OcrfleetError):
    """The worker is broken: it must stop consuming, give back its pages and exit with a non-zero code."""


class DamagedRecordError(OcrfleetError):
    """A stored record can't be parsed: its bytes are damaged, or a newer version wrote it."""


class UnavailableError(FatalError):
    """A service that the worker depends on refuses it, independent of any page."""


class ConfigurationError(FatalError):
    """The process can't work with its configuration: a restart does not help."""


class NotFoundError(OcrfleetError):
    """There is no such object, document or page."""
