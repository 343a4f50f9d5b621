"""Limit how many requests of a kind are served at the same time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from producer.api.problems import ProblemError

#: Seconds after which a refused client should try again.
_RETRY_AFTER = 5
#: A client gets a slot while it holds fewer than so many times the free ones.
SHARE = 3


class ConcurrencyLimit:
    """A number of slots that clients share; a request that finds none for its client is refused with 429.

    A client holds fewer than three times the slots that are free, so it never takes the last ones of four or more. Clients
    without a name (where no tokens are set, there is only one) are not told apart.
    """

    def __init__(self, count: int, what: str) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._what = what

    @contextmanager
    def taken(self, client: str = "") -> Iterator[None]:
        """Hold a slot while the block runs. Raises ProblemError."""
        with self._lock:
            room = self._free > 0 and (not client or self._held[client] < SHARE * self._free)
            if room:
                self._free -= 1
                self._held[client] += 1
        if not room:
            raise ProblemError.too_many(
                f"There are too many {self._what} at the same time: try again in {_RETRY_AFTER} seconds.",
                after=_RETRY_AFTER,
            )
        try:
            yield
        finally:
            with self._lock:
                self._free += 1
                self._held[client] -= 1
                self._held += Counter()  # without the clients that hold none
