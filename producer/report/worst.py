"""The worst pages of a report, which are shown with an image and their text."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from producer.report.pages import PageState, ReportedPage


@dataclass(frozen=True, slots=True)
class WorstPage:
    """A page to look at."""

    #: row of the page in the report
    row: int
    document: str
    page: int
    text: str


class WorstPages:
    """Keeps the pages that deserve a look most, `most` of them, whatever the number of pages is.

    Failed pages come first, those with a text before those without; then pages to look at, then all by their confidence, those
    without one last. Blank pages are left out. Failed pages take at most
    half of the places if there are others: an encrypted book would fill them.
    """

    #: characters of a page's text that are kept
    LONGEST_TEXT = 4000

    def __init__(self, most: int) -> None:
        self._most = most
        self._failed: list[tuple[float, int, WorstPage]] = []
        self._done: list[tuple[float, int, WorstPage]] = []

    def add(self, row: int, document: str, page: ReportedPage) -> None:
        """Offer a page."""
        if page.state is PageState.FAILED:
            self._offer(self._failed, 0.0 if page.text else 1.0, row, document, page)
        elif page.state is PageState.DONE and not page.blank:
            rank = 2.0 if page.confidence is None else page.confidence
            self._offer(self._done, rank - 3 * page.review, row, document, page)

    def _offer(
        self, heap: list[tuple[float, int, WorstPage]], rank: float, row: int, document: str, page: ReportedPage
    ) -> None:
        # The heap's first entry is the best page: the largest rank, of equal ones the last row.
        if not self._most or (len(heap) >= self._most and heap[0][:2] > (-rank, -row)):
            return
        entry = (-rank, -row, WorstPage(row, document, page.page, page.text[: self.LONGEST_TEXT]))
        (heapq.heappush if len(heap) < self._most else heapq.heapreplace)(heap, entry)

    def ordered(self) -> list[WorstPage]:
        """Return the pages, worst first."""
        failed, done = (
            [page for *_, page in sorted(heap, key=lambda entry: entry[:2], reverse=True)]
            for heap in (self._failed, self._done)
        )
        kept = max(self._most - len(done), self._most // 2)
        return (failed[:kept] + done)[: self._most]
