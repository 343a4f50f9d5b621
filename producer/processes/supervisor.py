"""`ocrfleet worker`: keeps worker processes running, one for each device, and drains them when it is told to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from ocrfleet import logs
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import EXIT_CONFIGURATION, ConfigurationError, TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.metrics.exposition import ChildMetrics, Exposition, served
from ocrfleet.scratch import scratch
from producer.processes.child_process import ChildProcess, stop
from producer.processes.gpus import Gpus
from producer.processes.worker_command import COMMAND, environment_of

if TYPE_CHECKING:
    from types import FrameType

    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds between two looks at the processes.
_ROUND = 0.2
#: Seconds before a process that failed to start is started again: doubled each time, up to the second number.
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
#: Seconds beyond the drain that a worker may take to end its engine.
_END = 30.0
#: Seconds after which being told again means: at once. Some tell us twice in one go, as timeout(1) does.
_AGAIN = 0.5


def supervise(profile: Profile, settings: Settings, *, devices: Sequence[str | None]) -> int:
    """Run a worker process for each device until SIGTERM or SIGINT; return the exit code. Told again, kill them.

    A worker that says that it can never start is not started again, and the others go on. Raises ConfigurationError when
    none is left.
    """
    logs.configure(settings.log_level)
    asked: list[float] = []
    hurried: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(time.monotonic())
        if asked[-1] - asked[0] > _AGAIN:
            hurried.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask)
    told = {} if settings.openai.base_url is None else {"OCRFLEET_OPENAI_BASE_URL": settings.openai.base_url}
    ledger = Ledger(settings.redis_url)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch("ocrfleet-workers-"))
        children = ChildMetrics(folder / "metrics")
        stack.enter_context(_exposed(children, profile, settings, devices))
        members = []
        for index, device in enumerate(devices):
            name = f"worker-{device or index}"
            ready = folder / f"{name}.ready"
            environment = environment_of(profile, device=device, told=told | {"OCRFLEET_READY_FILE": str(ready)})
            if settings.metrics_port is not None:
                environment |= children.environment(name)
            members.append(ChildProcess(name, COMMAND, environment, ready))
        due = dict.fromkeys((member.name for member in members), 0.0)
        kept = list(members)
        try:
            while not asked:
                kept = [member for member in kept if _look(member, due, ledger, profile.name, children)]
                if not kept:
                    raise ConfigurationError(
                        "no worker can start, or go on, as it is configured; the errors above say why"
                    )
                time.sleep(_ROUND)
            log.info("draining", seconds=settings.drain_seconds)
        finally:
            stop(members, grace=settings.drain_seconds + _END, hurry=lambda: bool(hurried))
    return 128 + hurried[0] if hurried else 0


@contextmanager
def _exposed(
    children: ChildMetrics, profile: Profile, settings: Settings, devices: Sequence[str | None]
) -> Iterator[None]:
    """Expose this process's metrics, its children's and the GPUs' until the block ends."""
    metrics.ENGINE_RESTARTS.labels(profile.name)
    exposition = Exposition(settings)
    exposition.add(children)
    exposition.add(Gpus(devices))
    with served(exposition, settings):
        yield


def _look(member: ChildProcess, due: dict[str, float], ledger: Ledger, profile: str, children: ChildMetrics) -> bool:
    """Start a process that is due; note when one that has ended is. Return False for one that is never to be started again."""
    now = time.monotonic()
    if member.name in due:
        if now >= due[member.name]:
            del due[member.name]
            member.start_again()
        return True
    code = member.died()
    if code is None:
        return True
    children.record_exit(member.name)
    if code == EXIT_CONFIGURATION:
        log.error("worker can't start, or go on, as it is configured: its last error says why", member=member.name)
        return False
    if member.process is not None:
        with suppress(TransientError):  # it helps whoever looks at a page that was quarantined, no more
            ledger.record_exit(member.process.pid, member.end())
    wait = min(_FIRST_WAIT * 2 ** max(0, member.failed_starts - 1), _LONGEST_WAIT)
    log.warning("restarting", member=member.name, exit_code=code, seconds=wait)
    metrics.ENGINE_RESTARTS.labels(profile).inc()
    due[member.name] = now + wait
    return True
