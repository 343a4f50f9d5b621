"""What a process that opens documents may do: read its own code and libraries, and nothing else of the system.

The fork server (ocrfleet/sandbox/fork_server.py) prepares the confinement once, each of its children takes it on.
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ocrfleet.sandbox import landlock, seccomp
from ocrfleet.sandbox.libc import libc, prctl

_PR_SET_DUMPABLE, _PR_SET_PDEATHSIG = 4, 1
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
#: Libraries of the system; fonts, with which PDFium draws what a PDF doesn't contain; randomness, which qpdf decrypts with.
_LIBRARIES = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *("/usr/share/fonts", "/usr/local/share/fonts", "/dev/urandom"),
)


#: Names of the kernel's parts that confine a child.
PARTS = ("Landlock", "seccomp")


@dataclass(frozen=True, slots=True)
class Support:
    """What this machine's kernel can do for a sandbox."""

    #: version of Landlock's interface; 0 without Landlock
    landlock: int
    seccomp: bool

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(part for part, there in zip(PARTS, (self.landlock > 0, self.seccomp), strict=True) if not there)


@cache
def support() -> Support:
    """Return what the kernel offers to this process."""
    return Support(landlock=landlock.abi(), seccomp=seccomp.is_supported())


def hide_memory() -> None:
    """Let no other process of this user read this one's memory, environment and descriptors (/proc/PID), or trace it."""
    prctl(_PR_SET_DUMPABLE, 0)


def leave_networks() -> None:
    """Move this process to a network without devices, where the kernel allows it."""
    # As root a network namespace needs nothing more; others need a user namespace around it.
    if libc().unshare(_CLONE_NEWNET) != 0:
        libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def become_first_victim() -> None:
    """Let the kernel kill this process and its children first when memory runs out."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123
        score.write("1000")


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, whose only thread must have started it."""
    prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)  # it ended before


@cache
def ruleset() -> int | None:
    """Return the descriptor of the Landlock rules for this program, made once; None without Landlock. Raises OSError."""
    return landlock.ruleset(_readable()) if support().landlock else None


def prepare() -> None:
    """Make what the confinement of each child needs. Raises OSError."""
    ruleset()
    if support().seccomp:
        seccomp.prepared()


def confine() -> None:
    """Give up everything but reading code, computing and answering; for good. Raises OSError."""
    rules = ruleset()
    if rules is not None:
        landlock.restrict(rules)
        os.close(rules)
    if support().seccomp:
        seccomp.restrict()


def _readable() -> Iterator[str]:
    """Yield the paths of this program's code: Python's libraries, and its own packages where they lie elsewhere."""
    yield from _LIBRARIES
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    libraries |= {str(Path(os.__file__).parent), *(path for path in sys.path if path.endswith("-packages"))}
    yield from libraries
    # A working tree may hold secrets: only its packages.
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if (
            path
            and "." not in module.__name__
            and not any(path.startswith(f"{library}{os.sep}") for library in libraries)
        ):
            yield str(Path(path).parent) if hasattr(module, "__path__") else path
