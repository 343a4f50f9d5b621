"""An engine that runs while tests use it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import psutil

from ocrfleet.profiles.profile import Profile
from ocrfleet.settings import Settings
from tests.support.waiting import scaled
from worker import engines

#: Seconds for pages of an engine that is yet to start, which takes vLLM 20 to 40 seconds on a CPU.
PATIENCE = 240


class Running:
    """An engine on an event loop in a separate thread, as in a worker."""

    def __init__(self, profile: Profile, settings: Settings | None = None) -> None:
        self.profile = profile
        self.engine = engines.create(profile, settings or Settings())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.use(lambda engine: engine.start())
        except BaseException:
            self._end()
            raise

    def use(self, function: Callable[[Any], Awaitable[Any]]) -> Any:
        async def call() -> Any:
            return await function(self.engine)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(timeout=scaled(200))

    def close(self) -> None:
        self.use(lambda engine: engine.stop())
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def gone(pids: list[int], *, within: float) -> bool:
    """Return whether all these processes end within the given seconds; a zombie counts as ended."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return not [
        one for one in psutil.wait_procs(processes, timeout=scaled(within))[1] if one.status() != psutil.STATUS_ZOMBIE
    ]
