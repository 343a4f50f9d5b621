"""The processes of `ocrfleet worker`: one per device, supervised, drained on a signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from ocrfleet import logs
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import EXIT_CONFIGURATION, TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.metrics.exposition import ChildMetrics, Exposition, served
from ocrfleet.scratch import scratch
from producer.processes.child_process import ChildProcess
from producer.processes.gpus import Gpus
from producer.processes.supervisor import RestartPolicy, Supervisor
from producer.processes.worker_command import COMMAND, environment_of

if TYPE_CHECKING:
    from types import FrameType

    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds between two checks of the processes.
_ROUND = 0.2
#: Seconds after the drain for a worker to stop its engine.
_END = 30.0
#: Seconds after the first signal until a further one kills the workers: timeout(1) and other programs send two at once.
_AGAIN = 0.5


def run_workers(profile: Profile, settings: Settings, *, devices: Sequence[str | None]) -> int:
    """Run a worker process for each device until SIGTERM or SIGINT; return the exit code. A later signal kills them.

    A misconfigured worker is not restarted; the others keep running. Raises ConfigurationError if none is left.
    """
    logs.configure(settings.log_level)
    signalled: list[float] = []
    hurried: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        signalled.append(time.monotonic())
        if signalled[-1] - signalled[0] > _AGAIN:
            hurried.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    ledger = Ledger(settings.redis_url.get_secret_value())
    with ExitStack() as stack:
        folder = stack.enter_context(scratch("ocrfleet-workers-"))
        children = ChildMetrics(folder / "metrics")
        stack.enter_context(_exposed(children, profile, settings, devices))

        def record_exit(child: ChildProcess, code: int) -> None:
            children.record_exit(child.name)
            if code != EXIT_CONFIGURATION and child.process is not None:
                metrics.ENGINE_RESTARTS.labels(profile.name).inc()
                with suppress(TransientError):  # only the detail of a quarantined page uses the exit
                    ledger.record_exit(child.process.pid, child.describe_exit())

        supervisor = Supervisor(RestartPolicy(spare_others=True), on_exit=record_exit)
        options = {"OCRFLEET_AUDIT": str(settings.audit)}
        if settings.openai.base_url is not None:
            options["OCRFLEET_OPENAI_BASE_URL"] = settings.openai.base_url.get_secret_value()
        try:
            for index, device in enumerate(devices):
                name = f"worker-{device or index}"
                ready = folder / f"{name}.ready"
                environment = environment_of(
                    profile, device=device, options=options | {"OCRFLEET_READY_FILE": str(ready)}
                )
                if settings.metrics_port is not None:
                    environment |= children.environment(name)
                supervisor.start(ChildProcess(name, COMMAND, environment, ready))
            while not signalled:
                supervisor.watch()
                time.sleep(_ROUND)
            log.info("workers.draining", seconds=settings.drain_seconds)
        finally:
            supervisor.stop(grace=settings.drain_seconds + _END, hurry=lambda: bool(hurried))
    return 128 + hurried[0] if hurried else 0


@contextmanager
def _exposed(
    children: ChildMetrics, profile: Profile, settings: Settings, devices: Sequence[str | None]
) -> Iterator[None]:
    """Serve the metrics of this process, its children and the GPUs until the block ends."""
    metrics.ENGINE_RESTARTS.labels(profile.name)
    exposition = Exposition(settings)
    exposition.add(children)
    exposition.add(Gpus(devices))
    with served(exposition, settings):
        yield
