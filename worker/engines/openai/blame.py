"""Whose fault it is that a server fails on a page: the server's, or that of the page."""

from __future__ import annotations

import hashlib

from ocrfleet.errors import OcrfleetError, Reason

#: Pages that are remembered, 32 bytes each; who is forgotten counts as one that fails for the first time.
MOST_SUSPECTS = 1000


class DoubtError(OcrfleetError):
    """A server failed on a page, by its own fault or by that of the page."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Suspects:
    """The pages that a server failed on, and whether it was well all the same.

    A page is to blame when the server has answered another one since it failed on this one before. When it fails for
    the first time, then since it was sent, and since any other failed: a server that dies fails on all pages that it
    has, and no more than one of them is blamed for it. Each blame needs an answer of its own.

    Answers and failures are numbered as they come.
    """

    def __init__(self) -> None:
        self._count = self._answered = self._failed = 0
        #: when each page failed last, by its digest; the oldest first
        self._pages: dict[bytes, int] = {}

    @property
    def now(self) -> int:
        return self._count

    def answered(self, page: str) -> None:
        """Note that the server has answered a page, which is suspected no longer."""
        self._count += 1
        self._answered = self._count
        if self._pages:
            self._pages.pop(_digest(page), None)

    def failed(self, page: str, *, sent: int) -> bool:
        """Note that the server failed on a page that was sent at `sent`, and say whether the page is to blame."""
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
