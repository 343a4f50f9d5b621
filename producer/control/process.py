"""The control plane of a fleet in one process and its children: `serve` and `dispatch` run it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from ocrfleet.metrics.exposition import ChildMetrics
from ocrfleet.scratch import scratch
from producer.control.controller import Controller
from producer.intake import consumer as clerk
from producer.processes.child_process import ChildProcess, stop

if TYPE_CHECKING:
    from ocrfleet.metrics.exposition import Exposition
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Seconds between two looks at the clerks; before one that died again and again is started, at most; that they get to end.
_ROUND = 1.0
_LONGEST_WAIT = 60.0
_GRACE = 15.0


@contextmanager
def control_plane(settings: Settings, store: ObjectStore, *, clerks: int, exposition: Exposition) -> Iterator[None]:
    """Strive to lead the fleet, and have so many intake processes, until the block ends. Their metrics are exposed."""
    ended = threading.Event()
    control = Controller(settings, store)
    exposition.add(control.gauges)
    with scratch("ocrfleet-clerks-") as folder:
        children = ChildMetrics(folder / "metrics")
        exposition.add(children)
        members = [_clerk(settings, folder / f"clerk-{number}.ready", children) for number in range(clerks)]
        intake = threading.Thread(target=_run_clerks, args=[members, children, ended], name="clerks", daemon=True)
        intake.start()
        control.start()
        try:
            yield
        finally:
            ended.set()
            control.stop()
            intake.join()


def _run_clerks(members: Sequence[ChildProcess], children: ChildMetrics, ended: threading.Event) -> None:
    """Keep the clerks running. All in one thread: they die with the one that started them."""
    for member in members:
        member.start()
    while not ended.wait(_ROUND):
        for member in members:
            code = member.died()
            if code is not None:
                children.record_exit(member.name)
                if not ended.wait(min(_LONGEST_WAIT, _ROUND * member.failed_starts)):
                    log.warning("restarting", member=member.name, exit_code=code)
                    member.start_again()
    stop(members, grace=_GRACE)


def _clerk(settings: Settings, ready: Path, children: ChildMetrics) -> ChildProcess:
    environment = {**os.environ, "OCRFLEET_READY_FILE": str(ready), **children.environment(ready.stem)}
    if settings.password_file is not None:
        environment["OCRFLEET_PASSWORD_FILE"] = str(settings.password_file.absolute())
    return ChildProcess(ready.stem, clerk.COMMAND, environment, ready)
