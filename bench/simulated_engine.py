"""A simulated engine with the timing of an A100, for bench/simulated_gpus.py.

One A100-40G generates 2,500 tokens per second for 100 concurrent pages, and a page has about 1,080 tokens: 2.31 pages per second,
the published 200,000 per day. One step of the model generates one token of each running page. A step takes a fixed time plus a
small time per page: 40 ms with 100 pages (25 tokens per second each), 16.7 ms with one page (60 per second; an assumption:
decoding is bound by memory bandwidth, so a step with fewer pages is hardly faster). With free slots the throughput is lower: with
50 of 100 pages it is 71 %.

One slot simulates five of those 100 pages and is five times as fast. So a simulated GPU has the same speed and fills up in a fifth
of the time. The test is stricter, because the GPU also becomes idle in a fifth of the time.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from worker.engines.base import Recognition

if TYPE_CHECKING:
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from worker.imaging.page_image import PageImage

#: Concurrent pages of an A100, and pages per slot.
PAGES_AT_ONCE, PAGES_PER_SLOT = 100, 5
SLOTS = PAGES_AT_ONCE // PAGES_PER_SLOT
TOKENS_PER_SECOND = 2500.0
#: Tokens per page, from a triangular distribution with these parameters; their mean is its mean.
FEWEST, COMMONEST, MOST = 500, 1040, 1700
TOKENS_PER_PAGE = (FEWEST + COMMONEST + MOST) / 3
PAGES_PER_SECOND = TOKENS_PER_SECOND / TOKENS_PER_PAGE
#: Seconds of a step of the model with one page, and for each further page.
_STEP = 1 / 60
_STEP_MORE = (PAGES_AT_ONCE / TOKENS_PER_SECOND - _STEP) / (PAGES_AT_ONCE - 1)

#: Environment variables: number of GPUs that each worker simulates, and folder of the journals.
GPUS, JOURNALS = "SIMULATED_GPUS", "SIMULATED_GPUS_JOURNALS"
#: Seconds between two lines of the journal: time (monotonic), pages ended, tokens written, seconds of filled slots.
_LINE = 0.25

_PARAGRAPH = "The archive keeps what the river would have taken, and lends it to all who ask with clean hands. " * 3
_TOKENS_PER_PARAGRAPH = 90


class SimulatedA100:
    """Simulates several A100s as one engine: all its pages share the throughput."""

    ahead = 0
    broken = None
    interruptible = True

    def __init__(self, profile: Profile, settings: Settings) -> None:
        del profile, settings
        self._gpus = float(os.environ[GPUS])
        self.version = f"simulated A100 x {self._gpus:g}"
        self.concurrency = max(1, round(SLOTS * self._gpus))
        name = Path(os.environ.get("OCRFLEET_READY_FILE", "worker")).stem
        self._random = random.Random(name)  # noqa: S311 - reproducible pages
        self._journal = Path(os.environ[JOURNALS], name).open("a")  # noqa: SIM115 - open for the lifetime of the engine
        #: tokens of a page that has been running since the start
        self._clock = 0.0
        self._seen = time.monotonic()
        #: by the token clock at the end of the page
        self._running: list[tuple[float, int, asyncio.Future[None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._taken = self._pages = 0
        self._tokens = self._filled = 0.0

    async def start(self) -> None:
        self._write_journal()

    async def recognise(self, image: PageImage, profile: Profile) -> Recognition:
        del image, profile
        self._taken += 1
        tokens = round(self._random.triangular(FEWEST, MOST, COMMONEST))
        if self._taken == 1:
            return Recognition(text="")  # the self-test page
        # The first pages start with random progress, as in the steady state; otherwise they would all end at the same time.
        left = tokens * self._random.random() if self._taken <= self.concurrency + 1 else tokens
        end = asyncio.get_running_loop().create_future()
        self._advance()
        heapq.heappush(self._running, (self._clock + left, self._taken, end))
        self._wait()
        await end
        self._pages += 1
        return Recognition(text=_output(tokens), finish_reason="stop", tokens=tokens)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _speed(self) -> float:
        """Tokens per second of each page."""
        pages = PAGES_PER_SLOT * len(self._running) / self._gpus
        return PAGES_PER_SLOT / (_STEP + _STEP_MORE * (max(pages, 1.0) - 1))

    def _advance(self) -> None:
        """Advance the token clock to the current time."""
        now = time.monotonic()
        passed, self._seen = now - self._seen, now
        if self._running:
            written = passed * self._speed()
            self._clock += written
            self._tokens += written * len(self._running)
            self._filled += passed * len(self._running)

    def _wait(self) -> None:
        """Schedule the end of the next page."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running:
            seconds = (self._running[0][0] - self._clock) / self._speed()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._end)

    def _end(self) -> None:
        self._advance()
        while self._running and self._running[0][0] <= self._clock + 1e-6:
            _, _, end = heapq.heappop(self._running)
            if not end.done():  # otherwise the caller was cancelled
                end.set_result(None)
        self._wait()

    def _write_journal(self) -> None:
        self._advance()
        self._journal.write(f"{self._seen:.3f} {self._pages} {self._tokens:.1f} {self._filled:.3f}\n")
        self._journal.flush()
        asyncio.get_running_loop().call_later(_LINE, self._write_journal)


def _output(tokens: int) -> str:
    """Return an output of this many tokens: a heading and paragraphs with boxes, four characters per token."""
    count = max(1, tokens // _TOKENS_PER_PARAGRAPH)
    height = 900 // count
    boxes = (f"[[80, {50 + number * height}, 920, {45 + (number + 1) * height}]]" for number in range(count))
    labels = ("title" if number == 0 else "text" for number in range(count))
    return "\n\n".join(
        f"<|ref|>{label}<|/ref|><|det|>{box}<|/det|>\n{_PARAGRAPH}" for label, box in zip(labels, boxes, strict=True)
    )
