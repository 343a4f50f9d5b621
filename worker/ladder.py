"""The ladder: how a page is tried again whose text was not believed, or that failed by itself, and which text stands.

A page goes up only: from where it fell, to the next rung that is a remedy for what it fell with. So it ends, whatever it
falls with. A text that is believed ends the climb. Else the best one stands, as that of a failed page: what is doubted
least, in the order of `DOUBTS`; of two that are doubted alike, the one with more in it, where what repeats counts
once; of equals, the earlier. So no page is worse off for having been tried again.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from ocrfleet.errors import Reason
from ocrfleet.jobs import Climb

if TYPE_CHECKING:
    from ocrfleet.jobs import PageResult
    from ocrfleet.profiles import Rung

#: From the least: a text that ends too early is right as far as it goes, one that loops until it does; what can't be taken
#: apart may still be read; what is in another script, or was made up, had better not be; nothing is worse than anything.
DOUBTS = (
    Reason.TRUNCATED,
    Reason.REPETITION,
    Reason.UNPARSABLE,
    Reason.WRONG_SCRIPT,
    Reason.INVENTED,
    Reason.EMPTY,
)


def rungs_above(ladder: tuple[Rung, ...], rung: int, fell: Reason) -> list[int]:
    """Return the numbers (from 1) of the rungs above `rung` that are a remedy for what a page fell with."""
    return [
        number
        for number, step in enumerate(ladder, start=1)
        if number > rung and (not step.after or fell in step.after)
    ]


def fallen(climb: Climb | None, *, rung: int, fell: Reason, result: PageResult | None) -> Climb:
    """Return how far a page is that fell at a rung; `result` is its failure with the text, if it had one."""
    best = climb.best if climb is not None else None
    if result is not None and (best is None or _better(result, best)):
        best = result
    reached = rung if climb is None else max(rung, climb.rung)
    return Climb(rung=reached, fell=fell, best=best)


def _better(result: PageResult, than: PageResult) -> bool:
    return (_doubt(result), -_content(result)) < (_doubt(than), -_content(than))


def _doubt(result: PageResult) -> int:
    return DOUBTS.index(result.reason) if result.reason in DOUBTS else len(DOUBTS)


def _content(result: PageResult) -> int:
    """Return how much is in a text: bytes when it is compressed, so that copies count for little."""
    return len(zlib.compress(result.text.encode(errors="replace")))
