"""What a model has written of a page so far, watched for loops while it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.loops import LoopWatch

if TYPE_CHECKING:
    from worker.loops import Loop

#: Recognition.finish_reason of a page that was stopped as it repeated itself; servers say stop, length or abort.
LOOP = "loop"


class Transcript:
    """The text of one page, piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._watch = LoopWatch()
        #: what the page repeats at its end: nothing that is worth waiting for comes after that
        self.loop: Loop | None = None
        self.length = 0

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self._pieces)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        self.length += len(piece)
        self.loop = self._watch.feed(piece)
