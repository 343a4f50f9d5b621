"""Store retry: repeats calls to the object store or Redis, with backoff, while the server can't be reached."""

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

#: Seconds between two tries: doubled after each try, up to the second number.
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0


class StoreRetry:
    """Runs blocking functions in threads, and repeats them while they raise TransientError. For one event loop."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pipeline-io")
        self._stopped = False
        #: calls that wait for their next try
        self.waiting = 0

    def stop_retrying(self) -> None:
        """Make `call` raise TransientError from now on instead of trying again."""
        self._stopped = True

    def close(self) -> None:
        self._threads.shutdown()

    async def once(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in a thread, again and again until it does not raise TransientError."""
        wait = _FIRST_WAIT
        while True:
            try:
                answer = await self.once(function, *args)
                if wait > _FIRST_WAIT:
                    log.warning("store_retry.recovered")
            except TransientError as error:
                if self._stopped:
                    raise
                log.warning("store_retry.waiting", error=str(error), seconds=round(wait, 1))
                self.waiting += 1
                try:
                    await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                finally:
                    self.waiting -= 1
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                return answer
