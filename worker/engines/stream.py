"""What a model has written of a page so far, watched for loops while it comes."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from worker.engines.repetition import LoopWatch

if TYPE_CHECKING:
    from worker.engines.repetition import Loop

#: Recognition.finish_reason of a page that was stopped as it repeated itself, and of one that was stopped as its time was
#: over; servers say stop, length or abort.
LOOP, DEADLINE = "loop", "deadline"
#: Share of a page's time after which it is stopped, where something was written: what came is kept.
_TIME = 0.95


class Transcript:
    """The text of one page, piece by piece, for so many seconds."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._pieces: list[str] = []
        self._watch = LoopWatch()
        self._ends = time.monotonic() + _TIME * seconds
        #: what the page repeats at its end: nothing that is worth waiting for comes after that
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
        """Why no more is to be waited for, as a finish_reason; None while there is no reason."""
        if self.loop is not None:
            return LOOP
        return DEADLINE if self.length and time.monotonic() > self._ends else None

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        self.length += len(piece)
        self.loop = self._watch.feed(piece)
