"""The text of a page while a model generates it, checked for repetition piece by piece."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from worker.engines.repetition import LoopWatch

if TYPE_CHECKING:
    from worker.engines.repetition import Loop

#: Our values of Recognition.finish_reason: generation was stopped for a repetition, or at the deadline. Engines report
#: stop, length or abort.
LOOP, DEADLINE = "loop", "deadline"
#: Share of a page's deadline after which a page with some text is stopped, so that the text is kept.
_TIME = 0.95


class Transcript:
    """The generated text of one page, with a deadline in seconds."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._pieces: list[str] = []
        self._watch = LoopWatch()
        self._ends = time.monotonic() + _TIME * seconds
        #: the repetition at the end of the text; generation should stop when there is one
        self.loop: Loop | None = None
        self.length = 0

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self._pieces)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def stopped(self) -> str | None:
        """The finish reason if generation should be stopped now; None otherwise."""
        if self.loop is not None:
            return LOOP
        return DEADLINE if self.length and time.monotonic() > self._ends else None

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        self.length += len(piece)
        self.loop = self._watch.feed(piece)
