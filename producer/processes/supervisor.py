"""The supervisor: starts child processes, and restarts dead ones by a restart policy."""

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
    """When to restart a dead child process. One that exits with 78 (misconfigured) is never restarted."""

    #: seconds before a restart; doubled with each consecutive failed start, up to `longest_wait`
    first_wait: float = 1.0
    longest_wait: float = 60.0
    #: number of consecutive failed starts that raises FatalError; None: no limit
    failed_starts: int | None = None
    #: whether other children keep running without a misconfigured one; otherwise raise ConfigurationError at once
    spare_others: bool = False


class Supervisor:
    """Keeps child processes running. Use it from one thread: children die with the thread that started them."""

    def __init__(
        self,
        policy: RestartPolicy,
        *,
        on_exit: Callable[[ChildProcess, int], None] = lambda _child, _code: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_exit` is called with each dead child and its exit code, before the restart."""
        self._policy = policy
        self._clock = clock
        self._on_exit = on_exit
        self._children: list[ChildProcess] = []
        #: restart time of dead children by `clock`, by name
        self._due: dict[str, float] = {}

    @property
    def children(self) -> list[ChildProcess]:
        return list(self._children)

    def start(self, child: ChildProcess) -> None:
        """Start a child and keep it running."""
        self._children.append(child)
        child.start()

    def watch(self) -> None:
        """Check each child once, and restart those that are due. Does not block.

        Raises ConfigurationError for a misconfigured child (with `spare_others` only if no other child is left), FatalError if a
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
        """Schedule the restart of a dead child; return False for a misconfigured one, which is removed."""
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
        """Stop all children: terminate, wait `grace` seconds or until `hurry()`, kill. Idempotent."""
        stop(self._children, grace=grace, hurry=hurry)
        self._children.clear()
        self._due.clear()
