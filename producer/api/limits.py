"""How many of something may go on at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from producer.api.problems import ProblemError

#: Seconds after which it is worth to ask again.
_AFTER = 5


class Slots:
    """A number of places; who finds none is asked to come again."""

    def __init__(self, count: int, what: str) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._what = what

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a place for the time of the block. Raises ProblemError."""
        if not self._free.acquire(blocking=False):
            raise ProblemError.too_many(
                f"There are too many {self._what} at the same time: ask again in {_AFTER} seconds.", after=_AFTER
            )
        try:
            yield
        finally:
            self._free.release()
