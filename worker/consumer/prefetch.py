"""The prefetch limit: a worker takes another job from Redis only when it has room for its pages.

Celery's own limit (`worker_disable_prefetch`) counts jobs. This one counts pages, at the same place, before it. A kombu consumer
sleeps between events, so it is woken when there is room again: the engine would be idle meanwhile.
"""

from __future__ import annotations

import os
from contextlib import suppress
from types import MethodType
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

if TYPE_CHECKING:
    from celery import Celery

    from worker.pipeline.jobs import JobRunner


def limit_prefetch(app: Celery, jobs: JobRunner) -> None:
    """Put the limit into the app's consumer, at each of its (re)connections."""

    class PrefetchLimit(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        requires = (Tasks,)

        def __init__(self, *_: Any, **__: Any) -> None:
            self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

        def start(self, consumer: Any) -> None:
            qos = consumer.task_consumer.channel.qos
            limit_by_jobs = qos.can_consume

            def can_consume(_: Any) -> bool:
                expected = max(0, len(state.reserved_requests) - jobs.in_hand)
                return bool(jobs.has_room(expected_jobs=expected) and limit_by_jobs())

            qos.can_consume = MethodType(can_consume, qos)
            consumer.hub.add_reader(self._read, self._woken)
            jobs.on_room = self._wake

        def _wake(self) -> None:
            with suppress(BlockingIOError):  # the pipe is full: it will wake anyway
                os.write(self._write, b"!")

        def _woken(self) -> None:
            os.read(self._read, 4096)

        def stop(self, consumer: Any) -> None:
            jobs.on_room = lambda: None
            consumer.hub.remove(self._read)

    app.steps["consumer"].add(PrefetchLimit)
