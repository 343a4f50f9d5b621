"""Patience: the store or Redis may be away for a while, and a worker waits for them with what it has in hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog

from ocrfleet.errors import TransientError

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: Seconds between two tries: doubled each time, up to the second number.
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0


class StoreRetry:
    """Calls functions that block, in threads, again and again while they raise TransientError."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pipeline-io")
        self._over = False
        #: calls that wait for the next try
        self.waiting = 0

    def end(self) -> None:
        """Wait no more: from now on a TransientError is raised."""
        self._over = True

    def close(self) -> None:
        self._threads.shutdown()

    async def once(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a thread until it does not raise TransientError."""
        wait = _FIRST_WAIT
        while True:
            try:
                answer = await self.once(function, *args)
                if wait > _FIRST_WAIT:
                    log.warning("going on")
            except TransientError as error:
                if self._over:
                    raise
                log.warning("waiting", error=str(error), seconds=round(wait, 1))
                self.waiting += 1
                try:
                    await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                finally:
                    self.waiting -= 1
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                return answer
