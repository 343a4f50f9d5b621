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

if TYPE_CHECKING:
    from collections.abc import Collection

    from ocrfleet.profiles.profile import RetryStep
    from ocrfleet.records.pages import PageResult

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


def rungs_above(ladder: tuple[RetryStep, ...], rung: int, fell: Collection[Reason]) -> list[int]:
    """Return the numbers (from 1) of the rungs above `rung` that are a remedy for something that a page fell with."""
    return [
        number
        for number, step in enumerate(ladder, start=1)
        if number > rung and (not step.after or not set(fell).isdisjoint(step.after))
    ]


def better(result: PageResult, than: PageResult | None) -> PageResult:
    """Return the better one of two results that are not believed; the second where they are equally good."""
    return result if than is None or _rank(result) < _rank(than) else than


def _rank(result: PageResult) -> tuple[int, int]:
    doubt = DOUBTS.index(result.reason) if result.reason in DOUBTS else len(DOUBTS)
    # How much is in a text: bytes when it is compressed, so that copies count for little.
    return doubt, -len(zlib.compress(result.text.encode(errors="replace")))
