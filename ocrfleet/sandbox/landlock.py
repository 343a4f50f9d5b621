"""Access of a process to files and to others (Landlock), for the processes that open documents. Needs no privilege.

See landlock(7) and Linux' Documentation/userspace-api/landlock.rst; flags and structures are those of linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress

_PR_SET_NO_NEW_PRIVS = 38
#: System calls, with the same numbers on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _RULE_PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
#: Rights to files that each ABI knows, from ABI 1 on: truncation came with the third, ioctl of devices with the fifth.
_FILES = ((1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1, (1 << 15) - 1, (1 << 16) - 1)
#: The ABI from which on TCP is governed (bind, connect), and abstract sockets and signals.
_TCP_FROM, _SCOPES_FROM = 4, 6
_TCP, _SCOPES = 0b11, 0b11


def abi() -> int:
    """Return the version of Landlock's interface; 0 where the kernel does not have it or has it disabled."""
    if sys.platform != "linux":
        return 0
    return max(0, _system_call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG)))


def ruleset(readable: Iterable[str]) -> int:
    """Return the descriptor of a ruleset that allows to read below the given paths, and nothing else. Raises OSError."""
    version = abi()
    attributes = struct.pack(
        "=QQQ",
        _FILES[min(version, len(_FILES)) - 1],
        _TCP if version >= _TCP_FROM else 0,
        _SCOPES if version >= _SCOPES_FROM else 0,
    )
    made = _checked(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for path in readable:
        with suppress(FileNotFoundError, NotADirectoryError):
            beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights = _READ_FILE | (_READ_DIRECTORY if os.path.isdir(path) else 0)  # noqa: PTH112 - before imports
            try:
                rule = struct.pack("=Qi", rights, beneath)
                _checked(_ADD_RULE, ctypes.c_int(made), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
            finally:
                os.close(beneath)
    return made


def restrict(made: int) -> None:
    """Confine this thread, and those that it starts, by a ruleset. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs can't be set")
    _checked(_RESTRICT_SELF, ctypes.c_int(made), ctypes.c_uint32(0))


def _system_call(number: int, *arguments: object) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments))


def _checked(number: int, *arguments: object) -> int:
    result = _system_call(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
