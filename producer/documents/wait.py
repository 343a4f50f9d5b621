"""Wait for a collection: until each source has ended and its results are delivered."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocrfleet.errors import TransientError
from producer.documents.views import OPEN, Forecast, SourceRow, State
from producer.text import duration, printable

if TYPE_CHECKING:
    from producer.delivery.finisher import Undelivered
    from producer.documents.service import DocumentService

#: Seconds between two checks at least, and multiple of the time of a check: those of a large collection take long.
_PAUSE, _REST = 1.0, 4.0
#: Incomplete sources that are kept to be shown.
_SHOWN = 20

#: Called with a message, the number of ended sources, and the number of all sources, None while that is not known.
Show = Callable[[str, int, int | None], None]


@dataclass
class Outcome:
    """Outcome of a collection, in sources and pages."""

    sources: Counter[State] = field(default_factory=Counter)
    pages: int = 0
    done: int = 0
    failed: int = 0
    #: the first of the sources that are not completed
    wanting: list[SourceRow] = field(default_factory=list)
    #: documents whose results could not be delivered
    undelivered: list[Undelivered] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Iterable[SourceRow]) -> Outcome:
        made = cls()
        for row in rows:
            made.sources[row.state] += 1
            made.pages, made.done, made.failed = made.pages + row.total, made.done + row.done, made.failed + row.failed
            if row.state is not State.COMPLETED and len(made.wanting) < _SHOWN:
                made.wanting.append(row)
        return made

    @property
    def open(self) -> int:
        """Number of sources that have not ended."""
        return sum(self.sources[state] for state in (*OPEN, State.ARRIVING))

    @property
    def succeeded(self) -> bool:
        """Whether all pages are done and delivered."""
        return not self.undelivered and self.sources.total() == self.sources[State.COMPLETED]


def wait_for(service: DocumentService, collection: str, show: Show) -> Outcome:
    """Return the outcome of a collection once it has ended. Keeps waiting while the store or Redis is away."""
    while True:
        begun = time.monotonic()
        try:
            left = service.when_done(collection)
            if not _left(left):
                outcome = Outcome.of(service.collection_report(collection))
                # After the report: a document's marker stays until its results are where they are wanted.
                if not outcome.open and not _left(service.when_done(collection)):
                    outcome.undelivered = list(service.undelivered(collection))
                    return outcome
            total = service.sources(collection)
            ended = max(0, total - _left(left))
            show(f"{ended}/{total} sources · {_said(left)}", ended, total)
        except TransientError as error:
            show(f"waiting: {printable(str(error))}", 0, None)
        time.sleep(max(_PAUSE, _REST * (time.monotonic() - begun)))


def _left(forecast: Forecast) -> int:
    return forecast.documents + forecast.arriving + forecast.finishing


def _said(left: Forecast) -> str:
    about = "" if left.exact else "about "
    parts = [f"{about}{left.pages} pages of {left.documents} documents are left"]
    if left.arriving:
        parts.append(f"{left.arriving} sources are to be taken in")
    if left.finishing:
        parts.append(f"{left.finishing} documents are being delivered")
    if left.seconds:
        parts.append(f"{duration(left.seconds)} left")
    elif left.reason is not None:
        parts.append(printable(left.reason))
    return " · ".join(parts)
