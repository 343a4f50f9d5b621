"""The supervisor: starts child processes and restarts those that die, by one policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ocrfleet.errors import EXIT_CONFIGURATION, ConfigurationError, FatalError
from producer.processes.child_process import ChildProcess, stop

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a child process that died is restarted. One that exits with 78 (misconfigured) never is."""

    #: seconds before a restart; doubled with each consecutive start that failed, up to `longest_wait`
    first_wait: float = 1.0
    longest_wait: float = 60.0
    #: consecutive failed starts that are an error; None: any number is tried
    failed_starts: int | None = None
    #: whether the other children go on without a misconfigured one; else that is an error at once
    spare_others: bool = False


class Supervisor:
    """Keeps child processes running. All calls come from one thread: children die with the thread that started them."""

    def __init__(
        self,
        policy: RestartPolicy,
        *,
        on_exit: Callable[[ChildProcess, int], None] = lambda _child, _code: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call `on_exit` with each child that died, and its exit code, before it is restarted."""
        self._policy = policy
        self._clock = clock
        self._on_exit = on_exit
        self._children: list[ChildProcess] = []
        #: when a child that died is restarted, by name and clock
        self._due: dict[str, float] = {}

    @property
    def children(self) -> list[ChildProcess]:
        return list(self._children)

    def start(self, child: ChildProcess) -> None:
        """Start a child and keep it running."""
        self._children.append(child)
        child.start()

    def watch(self) -> None:
        """Look at each child once, and restart those that are due. Returns at once.

        Raises ConfigurationError for a misconfigured child, or with `spare_others` when no other is left; FatalError when a
        child failed to start too often.
        """
        for child in self.children:
            if child.name not in self._due:
                code = child.take_exit()
                if code is None:
                    continue
                self._on_exit(child, code)
                if not self._schedule(child, code):
                    continue
            if self._clock() >= self._due[child.name]:
                del self._due[child.name]
                child.start()

    def _schedule(self, child: ChildProcess, code: int) -> bool:
        """Note when a child that died is restarted; return False for one that is dropped."""
        policy = self._policy
        if code == EXIT_CONFIGURATION:
            self._children.remove(child)
            if policy.spare_others and self._children:
                log.error("supervisor.child_misconfigured", child=child.name, error=child.last_error())
                return False
            raise ConfigurationError(f"{child.name} can't start, or go on, as it is configured: {child.last_error()}")
        if policy.failed_starts is not None and child.failed_starts >= policy.failed_starts:
            where = "" if child.log_file is None else f"; its log is {child.log_file}"
            raise FatalError(
                f"{child.name} failed to start {child.failed_starts} times (exit code {code}): {child.last_error()}{where}"
            )
        wait = min(policy.first_wait * 2.0 ** min(max(0, child.failed_starts - 1), 32), policy.longest_wait)
        log.warning("supervisor.restarting", child=child.name, exit_code=code, seconds=wait)
        self._due[child.name] = self._clock() + wait
        return True

    def stop(self, *, grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """End all children: they get `grace` seconds, or until `hurry()`; then they are killed. May be called twice."""
        stop(self._children, grace=grace, hurry=hurry)
        self._children.clear()
        self._due.clear()
