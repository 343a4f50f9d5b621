"""The worst pages of a report, shown with image and text."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from producer.report.pages import PageState, ReportedPage


@dataclass(frozen=True, slots=True)
class WorstPage:
    """One of the worst pages."""

    #: row of the page in the report
    row: int
    document: str
    page: int
    text: str


class WorstPages:
    """Keeps the `most` worst pages.

    Order: failed pages with a text, failed pages without a text, pages for review, other pages by ascending confidence, pages
    without a confidence. Blank pages are excluded. If there are other pages, failed pages take at most half of the places: an
    encrypted book would fill all of them.
    """

    #: maximum length of the text of a page
    LONGEST_TEXT = 4000

    def __init__(self, most: int) -> None:
        self._most = most
        self._failed: list[tuple[float, int, WorstPage]] = []
        self._done: list[tuple[float, int, WorstPage]] = []

    def add(self, row: int, document: str, page: ReportedPage) -> None:
        """Add a page if it is among the worst so far."""
        if page.state is PageState.FAILED:
            self._offer(self._failed, 0.0 if page.text else 1.0, row, document, page)
        elif page.state is PageState.DONE and not page.blank:
            rank = 2.0 if page.confidence is None else page.confidence
            self._offer(self._done, rank - 3 * page.review, row, document, page)

    def _offer(
        self, heap: list[tuple[float, int, WorstPage]], rank: float, row: int, document: str, page: ReportedPage
    ) -> None:
        # The first entry of the heap is the best page: the largest rank, then the last row.
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
