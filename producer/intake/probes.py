"""Probes: the sandboxed processes that count the pages of documents. Clients take turns at them."""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ocrfleet.sandbox.sandbox import Sandbox

#: Processes; each takes a core while it counts. With two, one client's documents leave one to the others.
_FEWEST, _MOST = 2, 4


class Probes:
    """A pool of sandboxes for clients that take turns. Thread-safe; `close` ends the processes.

    A free sandbox goes to the client that holds the fewest, and of these to the one whose turn was longest ago. A client never
    holds all of them; those without a name are one that may.
    """

    def __init__(self, *, memory: int) -> None:
        count = max(_FEWEST, min(_MOST, os.cpu_count() or 1))
        self._sandboxes = [Sandbox("producer.intake.probe", memory=memory, recycle=1) for _ in range(count)]
        self._free = list(self._sandboxes)
        self._held: Counter[str] = Counter()
        #: number of each client's last turn, while it waits or holds a sandbox
        self._turns: dict[str, int] = {}
        self._waiting: dict[int, str] = {}
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def close(self) -> None:
        for sandbox in self._sandboxes:
            sandbox.close()

    @contextmanager
    def taken(self, client: str) -> Iterator[Sandbox]:
        """Hold a sandbox while the block runs; blocks until it is this client's turn."""
        with self._changed:
            ticket = next(self._numbers)
            self._waiting[ticket] = client
            try:
                while self._next() != ticket:
                    self._changed.wait()
            finally:
                del self._waiting[ticket]
            sandbox = self._free.pop()
            self._held[client] += 1
            self._turns[client] = next(self._numbers)
            self._changed.notify_all()
        try:
            yield sandbox
        finally:
            with self._changed:
                self._free.append(sandbox)
                self._held[client] -= 1
                known = {*self._waiting.values(), *(each for each, held in self._held.items() if held)}
                self._turns = {each: turn for each, turn in self._turns.items() if each in known}
                self._held += Counter()  # without the clients that hold none
                self._changed.notify_all()

    def _next(self) -> int | None:
        """Return the ticket that gets the next sandbox; None while nobody may have one."""
        most = len(self._sandboxes) - 1
        able = (
            (self._held[client], self._turns.get(client, -1), ticket)
            for ticket, client in self._waiting.items()
            if not client or self._held[client] < most
        )
        return min(able, default=(0, 0, None))[2] if self._free else None
