"""Limit how many requests of a kind are served at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from producer.api.problems import ProblemError

#: Seconds after which a refused client should try again.
_RETRY_AFTER = 5


class ConcurrencyLimit:
    """A number of slots; a request that finds none free is refused with 429."""

    def __init__(self, count: int, what: str) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._what = what

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a slot while the block runs. Raises ProblemError."""
        if not self._free.acquire(blocking=False):
            raise ProblemError.too_many(
                f"There are too many {self._what} at the same time: try again in {_RETRY_AFTER} seconds.",
                after=_RETRY_AFTER,
            )
        try:
            yield
        finally:
            self._free.release()
