"""Access of a process to files and to others (Landlock), for the processes that open documents. Needs no privilege.

See landlock(7) and Linux' Documentation/userspace-api/landlock.rst; flags and structures are those of linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress

from ocrfleet.sandbox.libc import prctl, system_call

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
    try:
        return system_call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    except OSError:
        return 0


def ruleset(readable: Iterable[str]) -> int:
    """Return the descriptor of a ruleset that allows to read below the given paths, and nothing else. Raises OSError."""
    version = abi()
    attributes = struct.pack(
        "=QQQ",
        _FILES[min(version, len(_FILES)) - 1],
        _TCP if version >= _TCP_FROM else 0,
        _SCOPES if version >= _SCOPES_FROM else 0,
    )
    made = system_call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for path in readable:
        with suppress(FileNotFoundError, NotADirectoryError):
            beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights = _READ_FILE | (_READ_DIRECTORY if os.path.isdir(path) else 0)  # noqa: PTH112 - before imports
            try:
                rule = struct.pack("=Qi", rights, beneath)
                system_call(_ADD_RULE, ctypes.c_int(made), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
            finally:
                os.close(beneath)
    return made


def restrict(made: int) -> None:
    """Confine this thread, and those that it starts, by a ruleset. Raises OSError."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    system_call(_RESTRICT_SELF, ctypes.c_int(made), ctypes.c_uint32(0))
