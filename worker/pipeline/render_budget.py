"""Render budget of a document: how many of its renderings may exceed their time limit before its remaining pages fail at once."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from ocrfleet.errors import PermanentError, Reason

if TYPE_CHECKING:
    from worker.pipeline.context import WorkerContext
    from worker.pipeline.page import Page

#: Renderings that may exceed the limit: a share of the pages, and in any document so many.
_SHARE, _FEWEST = 0.05, 10
#: Documents whose count is remembered.
_REMEMBERED = 1000


def allowed(pages: int) -> int:
    """Return how many renderings of a document of so many pages may exceed their time limit."""
    return max(_FEWEST, math.ceil(_SHARE * pages))


class RenderBudgets:
    """Counts in the ledger which renderings exceeded their time limit, over all workers. For one event loop.

    Each generation of a document has a count of its own, so `retry` begins with a full budget.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        #: by document and generation: the highest count that is known
        self._spent: OrderedDict[tuple[str, int], int] = OrderedDict()

    def check(self, page: Page) -> None:
        """Raise PermanentError RENDER_BUDGET when the budget of the page's document is spent."""
        document, generation, _ = page.key
        spent = max(self._spent.get((document, generation), 0), page.faults.late_renderings)
        most = allowed(page.manifest.total)
        if spent >= most:
            raise PermanentError(
                Reason.RENDER_BUDGET,
                f"not tried: {most} renderings of this document took longer than {self._context.settings.render_deadline:g} s; "
                "simplify the document, or raise OCRFLEET_RENDER_DEADLINE and retry it",
            )

    async def spend(self, page: Page) -> None:
        """Count a rendering that exceeded its time limit."""
        document, generation, _ = page.key
        count = await self._context.store_retry.call(self._context.ledger.count_late_rendering, document, generation)
        self._spent[document, generation] = count
        self._spent.move_to_end((document, generation))
        if len(self._spent) > _REMEMBERED:
            self._spent.popitem(last=False)
