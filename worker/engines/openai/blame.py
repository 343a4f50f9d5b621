"""Decide whether a failed request is the fault of the server or of the page."""

from __future__ import annotations

import hashlib

from ocrfleet.errors import OcrfleetError, Reason

#: Failed pages that are remembered, 32 bytes each. A page that drops out counts as failing for the first time.
MOST_SUSPECTS = 1000


class DoubtError(OcrfleetError):
    """A request failed, and either the server or the page may be the cause."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Suspects:
    """The pages that a server failed on.

    A page is to blame if the server has answered another page since this one failed before. At a page's first failure,
    the answer must have come after the page was sent, and after the last failure of any other page: a server that dies
    fails on all pages in flight, and at most one of them may be blamed.

    Answers and failures are numbered in the order in which they arrive.
    """

    def __init__(self) -> None:
        self._count = self._answered = self._failed = 0
        #: number of each page's last failure, by the page's digest; oldest first
        self._pages: dict[bytes, int] = {}

    @property
    def now(self) -> int:
        return self._count

    def answered(self, page: str) -> None:
        """Record an answer. The page is no longer a suspect."""
        self._count += 1
        self._answered = self._count
        if self._pages:
            self._pages.pop(_digest(page), None)

    def failed(self, page: str, *, sent: int) -> bool:
        """Record a failure of a page that was sent at number `sent`. Return whether the page is to blame."""
        digest = _digest(page)
        before = self._pages.pop(digest, None)
        doubted = max(sent, self._failed) if before is None else before
        self._count += 1
        self._failed = self._pages[digest] = self._count
        if len(self._pages) > MOST_SUSPECTS:
            del self._pages[next(iter(self._pages))]
        return self._answered > doubted


def _digest(page: str) -> bytes:
    return hashlib.sha256(page.encode()).digest()
