"""A process that we started, watch and start again when it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocrfleet.sandbox.die_with_parent import dying_with_us

#: Bytes from a log's end in which its last line is looked for.
_LAST_LINE = 4096


@dataclass
class ChildProcess:
    """A process of a fleet, and what it takes to start it again."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    #: a file that is there once it is at work
    ready: Path
    #: where its output goes; to ours if None
    log_file: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    #: starts in a row that did not end in readiness
    failed_starts: int = 0
    restarts: int = 0

    def start(self) -> None:
        # A session of its own: a Ctrl-C in the terminal reaches us, and we decide when our members end.
        self.ready.unlink(missing_ok=True)
        if self.log_file is None:
            self._start(None)
            return
        with self.log_file.open("ab") as out:
            self._start(out.fileno())

    def _start(self, out: int | None) -> None:
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

    def died(self) -> int | None:
        """Return the exit code of a process that has ended, and count whether it had ever been ready."""
        if self.process is None or self.alive:
            return None
        self.failed_starts = 0 if self.ready.exists() else self.failed_starts + 1
        return self.process.returncode

    def end(self) -> str:
        """Say how a process ended, for a person to read."""
        code = self.process.returncode if self.process is not None else 0
        if code >= 0:
            return f"it ended with exit code {code}"
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", for want of memory or by somebody" if name == "SIGKILL" else "")

    def start_again(self) -> None:
        self.restarts += 1
        self.start()

    def last_entry(self) -> dict[str, object]:
        """Return the last line of the log, if it is a structured one."""
        if self.log_file is None:
            return {}
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
        if self.log_file is None or not self.log_file.exists():
            return "it said nothing"
        lines = self.log_file.read_text(errors="replace").splitlines()
        for line in reversed(lines[-200:]):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("level") in {"error", "critical"}:
                return str(entry.get("error") or entry.get("event"))
        return lines[-1] if lines else "it said nothing"


def stop(members: Iterable[ChildProcess], *, grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """Ask the members to end, wait for so many seconds or until there is need to hurry, then kill what is left."""
    members = list(members)
    if grace:
        send(members, "terminate")
        deadline = time.monotonic() + grace
        while any(member.alive for member in members) and time.monotonic() < deadline and not hurry():
            time.sleep(0.05)
    send(members, "kill")
    for member in members:
        if member.process is not None:
            member.process.wait()


def send(members: Iterable[ChildProcess], how: str) -> None:
    """Call `terminate` or `kill` on the processes that live."""
    for member in members:
        if member.process is not None and member.alive:
            getattr(member.process, how)()
