"""The gate: a worker takes another job from Redis when it has room for its pages, and not before.

Celery's own gate (`worker_disable_prefetch`) counts jobs; this one stands before it, at the same place, and counts pages.
A kombu consumer sleeps between events, so it is woken when there is room again: an engine would starve meanwhile.
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

    from worker.pipeline.jobs import Pipeline


def install(app: Celery, pipeline: Pipeline) -> None:
    """Put the gate into the app's consumer, at each of its (re)connections."""

    class Gate(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        requires = (Tasks,)

        def __init__(self, *_: Any, **__: Any) -> None:
            self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

        def start(self, consumer: Any) -> None:
            qos = consumer.task_consumer.channel.qos
            by_jobs = qos.can_consume

            def can_consume(_: Any) -> bool:
                to_come = max(0, len(state.reserved_requests) - pipeline.jobs_in_hand)
                return bool(pipeline.room(jobs_to_come=to_come) and by_jobs())

            qos.can_consume = MethodType(can_consume, qos)
            consumer.hub.add_reader(self._read, self._woken)
            pipeline.on_room = self._wake

        def _wake(self) -> None:
            with suppress(BlockingIOError):  # it has been told, and has not woken yet
                os.write(self._write, b"!")

        def _woken(self) -> None:
            os.read(self._read, 4096)

        def stop(self, consumer: Any) -> None:
            pipeline.on_room = lambda: None
            consumer.hub.remove(self._read)

    app.steps["consumer"].add(Gate)
