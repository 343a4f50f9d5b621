"""What can go wrong, as one tree: whose fault it is decides what happens next."""

from __future__ import annotations

from enum import StrEnum

#: How a worker process ends when it broke while working: start it again (EX_SOFTWARE of sysexits.h).
EXIT_BROKEN = 70
#: How it ends when it can never start as it is configured: starting it again is of no use (EX_CONFIG).
EXIT_CONFIGURATION = 78


class Reason(StrEnum):
    """Why a page is not `done`, or why a document has no pages. Part of the outputs: never rename one."""

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
    ENGINE_FAILED = "engine_failed"
    ENGINE_DEADLINE = "engine_deadline"
    WORKER_DIED = "worker_died"
    INTERNAL_ERROR = "internal_error"
    # Verdicts on a text that did come back (worker/pipeline/verdict.py). It is kept with the page, which is not done.
    TRUNCATED = "truncated"
    REPETITION = "repetition"
    EMPTY = "empty"
    INVENTED = "invented"
    WRONG_SCRIPT = "wrong_script"
    UNPARSABLE = "unparsable"
    NO_TEXT_LAYER = "no_text_layer"


class OcrfleetError(Exception):
    """The root of every error that this program raises on purpose."""


class PermanentError(OcrfleetError):
    """The input's fault: trying again gives the same answer. Carries the reason and what a person can do."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class PageFaultError(OcrfleetError):
    """A page's own fault that another attempt may overcome: a crash, a deadline, a lack of memory."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TransientError(OcrfleetError):
    """Nobody's fault: a store or a broker that is away. Wait, then try again; it counts against nothing."""


class FatalError(OcrfleetError):
    """The worker is broken: it must stop taking jobs, give back what it holds and exit non-zero."""


class DamagedRecordError(OcrfleetError):
    """A stored record can't be read: its bytes are damaged, or a newer version wrote it."""


class UnavailableError(FatalError):
    """What the worker depends on refuses it: no page had a part in it."""


class ConfigurationError(FatalError):
    """The worker can never start as it is configured: restarting it is of no use."""


class NotFoundError(OcrfleetError):
    """No object has this key."""
