"""Run a command that ends with the process that started it, even if that process is killed with SIGKILL.

    python -m ocrfleet.sandbox.die_with_parent PARENT_PID COMMAND [ARGUMENT …]

On Linux the kernel sends the signal (prctl(2), PR_SET_PDEATHSIG; it survives execve). It is tied to the thread that
started the process, so start it from a thread that lives as long as the process. Elsewhere the command just runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def dying_with_us(*command: str) -> list[str]:
    """Return a command line that runs a command (its program by full path), which is killed when this process ends."""
    # -P: no imports from the current folder; -S: without site, for speed.
    return [sys.executable, "-P", "-S", str(Path(__file__)), str(os.getpid()), *command]


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # the parent ended before prctl took effect
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
