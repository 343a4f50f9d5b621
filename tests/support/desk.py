"""The command as a user runs it: a subprocess, its exit code, what it prints, what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.support.servers import FAKES
from tests.support.waiting import scaled

COMMAND = [str(Path(sys.executable).with_name("ocrfleet"))]
NUMBERED = ["--engine", "numbered:NumberedEngine"]


class Desk:
    """A folder to work in, with `in` for scans and `out` for text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scans = folder / "in"
        self.out = folder / "out"
        self.log = folder / "recognised.log"
        self.scans.mkdir()
        self.plan: dict[str, Any] = {"log": str(self.log)}
        self._seen: dict[tuple[int, float], psutil.Process] = {}
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, *arguments: object, environment: dict[str, str] | None = None, start_new_session: bool = False
    ) -> subprocess.Popen[str]:
        if arguments[0] == "run" and NUMBERED[1] in arguments and "--workers" not in arguments:
            arguments = (*arguments, "--workers", 1)  # its pages cost nothing; a second worker costs a second to start
        plan = self.folder / "plan.json"
        plan.write_text(json.dumps(self.plan))
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(FAKES),
                "OCRFLEET_TEST_PLAN": str(plan),
                "COLUMNS": "200",
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            start_new_session=start_new_session,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: object, seconds: float = 200, **options: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=scaled(seconds))
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def recognised(self) -> list[int]:
        """The page numbers that test engines received, in order."""
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def family(self, process: subprocess.Popen[str]) -> list[psutil.Process]:
        """All living processes that a command started, remembered for `gone`."""
        try:
            found = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen |= {(one.pid, one.create_time()): one for one in found if one.is_running()}
        return found

    def member(self, process: subprocess.Popen[str], words: str, *, parent: str = "") -> psutil.Process:
        """A process with these words in its command line, and others in its parent's."""
        family = {one.pid: one for one in self.family(process)}
        for one in family.values():
            above = family.get(one.ppid())
            if words in " ".join(one.cmdline()) and parent in " ".join(above.cmdline() if above else ()):
                return one
        raise AssertionError(f"no process {words} among {[one.cmdline() for one in self.family(process)]}")

    def gone(self, seconds: float = 10) -> bool:
        """Return whether all recorded processes have ended."""
        _, alive = psutil.wait_procs(list(self._seen.values()), timeout=scaled(seconds))
        return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]

    def outputs(self, out: Path | None = None) -> dict[str, bytes]:
        """Delivered outputs, by name."""
        root = out or self.out
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and ".ocrfleet" not in path.parts
        }

    def stored_pages(self) -> int:
        return sum(1 for _ in (self.out / ".ocrfleet").rglob("pages/*.json"))

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                self.family(process)
                process.send_signal(signal.SIGKILL)
            process.communicate()
        assert self.gone(), "processes were left behind"
