"""A child process: start, exit and log of one program."""

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

#: Number of bytes at the end of a log in which the last line is searched.
_LAST_LINE = 4096


@dataclass
class ChildProcess:
    """A program with its environment. It can be started more than once."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    #: file that the child creates when it is ready
    ready: Path
    #: file to append its output to; None: the output of this process
    log_file: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    #: consecutive starts that failed: the child died before it was ready
    failed_starts: int = 0

    def start(self) -> None:
        """Start the program. It is killed when the thread that called this ends."""
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
            # Ctrl-C in the terminal reaches only this process, which then stops its children.
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def take_exit(self) -> int | None:
        """Return the exit code of a dead child, else None. Counts failed starts, so call it once per death."""
        if self.process is None or self.alive:
            return None
        self.failed_starts = 0 if self.ready.exists() else self.failed_starts + 1
        return self.process.returncode

    def describe_exit(self) -> str:
        """Return a description of how the child died."""
        code = self.process.returncode if self.process is not None else 0
        if code >= 0:
            return f"it ended with exit code {code}"
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", by the out-of-memory killer or a person" if name == "SIGKILL" else "")

    def last_entry(self) -> dict[str, object]:
        """Return the last line of the log file as a structured entry; empty if it is not one."""
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
        """Return the last error in the log file."""
        if self.log_file is None:
            return "the log above has its error"
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        for line in reversed(lines[-200:]):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("level") in {"error", "critical"}:
                return str(entry.get("error") or entry.get("event"))
        return lines[-1] if lines else "its log is empty"


def stop(children: Iterable[ChildProcess], *, grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """Terminate the children, wait up to `grace` seconds or until `hurry()`, then kill the rest."""
    children = list(children)
    if grace:
        _send(children, "terminate")
        deadline = time.monotonic() + grace
        while any(child.alive for child in children) and time.monotonic() < deadline and not hurry():
            time.sleep(0.05)
    _send(children, "kill")
    for child in children:
        if child.process is not None:
            child.process.wait()


def _send(children: Iterable[ChildProcess], how: str) -> None:
    for child in children:
        if child.process is not None and child.alive:
            getattr(child.process, how)()
