"""Places: the threads of an intake consumer, of which no client holds all."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """As many places as threads. Thread-safe. Those without a name are one client, which may hold all."""

    def __init__(self, count: int) -> None:
        self._most = count - 1
        self._held: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, client: str, *, seconds: float) -> Iterator[bool]:
        """Hold a place while the block runs; yield whether there was one for the client within so many seconds."""
        with self._changed:
            taken = self._changed.wait_for(lambda: not client or self._held[client] < self._most, seconds)
            if taken:
                self._held[client] += 1
        try:
            yield taken
        finally:
            if taken:
                with self._changed:
                    self._held[client] -= 1
                    self._held += Counter()  # without the clients that hold none
                    self._changed.notify_all()
