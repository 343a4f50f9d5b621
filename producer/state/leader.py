"""Leader election: one of several processes leads, by a key in Redis that expires.

After Redis was wiped, two may lead for some seconds: whatever a leader does must be safe to do twice.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import redis
import structlog
from redis.exceptions import LockError
from redis.lock import Lock

from ocrfleet import keys
from ocrfleet.errors import TransientError
from ocrfleet.metrics import definitions as metrics

log = structlog.get_logger(__name__)

#: Message about a fleet without a leader, which reads no new documents and delivers nothing.
NO_LEADER = "no process leads: start ocrfleet serve or dispatch"


def is_led(client: redis.Redis) -> bool:
    """Return whether a process leads the fleet, or did until some seconds ago. Raises TransientError when Redis is away."""
    try:
        return bool(client.exists(keys.REDIS_DISPATCHER))
    except redis.RedisError as error:
        metrics.REDIS_ERRORS.inc()
        raise TransientError(f"Redis can't be used: {error}") from error


class Leadership:
    """Acquires the key `name` when it is free, and renews it, in a thread of its own. Use as a context manager."""

    def __init__(self, client: redis.Redis, name: str, *, seconds: float = 15.0) -> None:
        self._lock = Lock(client, name, timeout=seconds, blocking=False, thread_local=False)
        self._pause = seconds / 5
        self._held = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leadership", daemon=True)

    @property
    def held(self) -> bool:
        return self._held.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        """Release the key, so that the next process need not wait."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pause if self._held.is_set() else min(1.0, self._pause)):
            self._acquire_or_renew()
        if self._held.is_set():
            try:
                self._lock.release()
            except redis.RedisError:  # it expires by itself
                log.debug("leader.not_released")

    def _acquire_or_renew(self) -> None:
        try:
            held = self._lock.reacquire() if self._held.is_set() else self._lock.acquire()
        except redis.RedisError as error:  # Redis is away, or another process has the key (LockError)
            held = False
            if not isinstance(error, LockError):
                metrics.REDIS_ERRORS.inc()
            if self._held.is_set():
                log.warning("leader.lost", error=str(error))
        if held and not self._held.is_set():
            log.info("leader.elected", name=self._lock.name)
        self._held.set() if held else self._held.clear()
