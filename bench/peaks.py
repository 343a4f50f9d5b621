"""Peak resident memory of processes since their start, from the kernel (VmHWM).

`ru_maxrss` is not usable: it includes the memory of the process before exec, which is the bench.
"""

from __future__ import annotations

import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil


class Peaks:
    """Watches processes and their children within a `with` block; keeps the highest peak of each role, in MiB.

    `roles` maps each role to a part of its command line; other processes are ignored.
    """

    def __init__(self, roles: dict[str, str], *processes: subprocess.Popen[bytes]) -> None:
        self.highest: dict[str, float] = {}
        self._roles = roles
        self._roots = processes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            for root in self._roots:
                with suppress(psutil.Error):
                    parent = psutil.Process(root.pid)
                    for one in (parent, *parent.children(recursive=True)):
                        self._look(one)

    def _look(self, process: psutil.Process) -> None:
        with suppress(psutil.Error, OSError, StopIteration):
            words = " ".join(process.cmdline())
            role = next(role for part, role in self._roles.items() if part in words)
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
            self.highest[role] = max(self.highest.get(role, 0.0), peak)
