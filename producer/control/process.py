"""The control plane of a fleet in one process and its children: `serve` and `dispatch` run it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import ConfigurationError, TransientError
from ocrfleet.metrics.exposition import ChildMetrics
from ocrfleet.scratch import scratch
from ocrfleet.storage.fleet_identity import claim_redis
from producer.control.controller import Controller
from producer.intake import consumer
from producer.processes.child_process import ChildProcess
from producer.processes.supervisor import RestartPolicy, Supervisor

if TYPE_CHECKING:
    from ocrfleet.metrics.exposition import Exposition
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

#: Seconds between two checks of the intake consumers; seconds until they are killed at the end.
_ROUND = 1.0
_GRACE = 15.0


@contextmanager
def control_plane(
    settings: Settings,
    store: ObjectStore,
    *,
    consumers: int,
    exposition: Exposition,
    on_failure: Callable[[], None],
) -> Iterator[None]:
    """Run the controller, and `consumers` intake consumers in processes of their own, until the block ends. Exposes their metrics.

    A misconfigured intake consumer, or a Redis of another fleet than the store's, calls `on_failure` from another thread, which must
    end the block; its end then raises ConfigurationError. Raises it at once where the two fleets are known at the beginning.
    """
    with suppress(TransientError), closing(Ledger(settings.redis_url.get_secret_value()).redis) as client:
        claim_redis(store, client)  # and again before this process leads
    controller = Controller(settings, store, on_failure)
    exposition.add(controller.gauges)
    with intake_consumers(settings, consumers, exposition=exposition, on_failure=on_failure):
        controller.start()
        try:
            yield
        finally:
            controller.stop()
    if controller.failure is not None:
        raise controller.failure


@contextmanager
def intake_consumers(
    settings: Settings, count: int, *, exposition: Exposition, on_failure: Callable[[], None]
) -> Iterator[None]:
    """Run intake consumers in processes of their own until the block ends. Exposes their metrics.

    A misconfigured one calls `on_failure` from another thread, which must end the block; its end then raises ConfigurationError.
    """
    ended = threading.Event()
    failures: list[ConfigurationError] = []
    with scratch("ocrfleet-intake-consumers-") as folder:
        metrics = ChildMetrics(folder / "metrics")
        exposition.add(metrics)
        processes = [
            _consumer(settings, folder / f"intake-consumer-{number}.ready", metrics) for number in range(count)
        ]

        def run() -> None:
            try:
                _run(processes, metrics, ended)
            except ConfigurationError as error:
                failures.append(error)
                on_failure()

        # One thread starts and watches them: children die with the thread that started them.
        intake = threading.Thread(target=run, name="intake-consumers", daemon=True)
        intake.start()
        try:
            yield
        finally:
            ended.set()
            intake.join()
    if failures:
        raise failures[0]


def _run(consumers: Sequence[ChildProcess], metrics: ChildMetrics, ended: threading.Event) -> None:
    """Keep the intake consumers running until `ended`. Raises ConfigurationError."""
    supervisor = Supervisor(RestartPolicy(), on_exit=lambda child, _code: metrics.record_exit(child.name))
    try:
        for child in consumers:
            supervisor.start(child)
        while not ended.wait(_ROUND):
            supervisor.watch()
    finally:
        supervisor.stop(grace=_GRACE)


def _consumer(settings: Settings, ready: Path, metrics: ChildMetrics) -> ChildProcess:
    environment = {**os.environ, "OCRFLEET_READY_FILE": str(ready), **metrics.environment(ready.stem)}
    if settings.password_file is not None:
        environment["OCRFLEET_PASSWORD_FILE"] = str(settings.password_file.absolute())
    return ChildProcess(ready.stem, consumer.COMMAND, environment, ready)
