"""The C library, for system calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os
from functools import cache


@cache
def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *arguments: object) -> int:
    """Change this process, or ask for its state: see the manual page of prctl. Raises OSError."""
    given = [*arguments, 0, 0, 0, 0][:4]
    return _checked("prctl", libc().prctl(option, *given))


def system_call(number: int, *arguments: object) -> int:
    """Call a system call by its number; arguments are ctypes' values, bytes or None. Raises OSError."""
    return _checked(f"system call {number}", libc().syscall(ctypes.c_long(number), *arguments))


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
