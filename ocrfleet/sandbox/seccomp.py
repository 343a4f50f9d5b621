"""Filter of system calls (seccomp) for the processes that open documents. Needs no privilege.

Memory, time, signals to itself, reading, and writing to descriptors that it was given are allowed. Nothing else is: no socket,
process, file to write, name to change. A refused call returns an error, so that a library which only probes carries on; calls
that no decoder makes end the process. See seccomp(2) and Linux' Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from ocrfleet.sandbox.libc import prctl
from ocrfleet.sandbox.system_calls import NEWER, NUMBERS

_PR_SET_NO_NEW_PRIVS, _PR_GET_SECCOMP, _PR_SET_SECCOMP, _MODE_FILTER = 38, 21, 22, 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
#: AUDIT_ARCH_* of linux/audit.h, and the column of the table of system calls.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
#: Bit in the numbers of calls of x32, a second interface of x86-64.
_X32 = 0x40000000

#: Instructions of classic BPF (linux/bpf_common.h).
_LOAD, _AND, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
#: Bytes of an instruction (struct sock_filter).
_SIZE = 8
#: Number in place of a process id: larger than any, and no part of another instruction.
_SELF = 0x5E1F5E1F
#: Offsets in struct seccomp_data.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_UNCONDITIONAL = (
    *("read", "write", "mmap", "munmap", "mprotect", "madvise", "mremap", "brk", "futex", "lseek", "pread64"),
    *("readv", "writev", "pwrite64", "close", "fstat", "newfstatat", "stat", "lstat", "statx", "access", "faccessat"),
    *("faccessat2", "getcwd", "readlink", "readlinkat", "getdents64", "fadvise64", "dup", "dup2", "dup3", "msync"),
    *("mincore", "membarrier", "recvfrom", "recvmsg", "poll", "ppoll", "select", "pselect6", "clock_gettime"),
    *("clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "times", "getrandom", "sched_yield"),
    *("sched_getaffinity", "getcpu", "getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid"),
    *("getrlimit", "getrusage", "sysinfo", "uname", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
    *("setitimer", "getitimer", "alarm", "pause", "restart_syscall", "rseq", "set_robust_list", "exit", "exit_group"),
)
#: Calls of an attacker only.
_DEADLY = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "execve", "execveat", "bpf", "io_uring_setup", "mount"),
    *("pivot_root", "unshare", "setns", "keyctl", "add_key", "request_key", "userfaultfd", "perf_event_open"),
    *("init_module", "finit_module", "kexec_load"),
)
#: Bits of open(2) that write, create or truncate: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE.
_WRITING = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000
#: FIOCLEX, FIONCLEX, FIONREAD, FIONBIO, TCGETS, TIOCGWINSZ.
_IOCTLS = (0x5451, 0x5450, 0x541B, 0x5421, 0x5401, 0x5413)
#: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC; not F_SETOWN, which signals others.
_FCNTLS = (0, 1, 2, 3, 4, 1030)
#: PR_SET_VMA: the C library names its memory.
_PRCTLS = (0x53564D41,)
_RLIMIT_AS = 9


@dataclass(frozen=True, slots=True)
class _Condition:
    """A 32-bit word of an argument, masked, must be one of the values."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    high: bool = False


_Instruction = tuple[int, int, int, int]
_REFUSED: _Instruction = (_RETURN, 0, 0, _ERRNO | errno.EPERM)


def is_supported() -> bool:
    """Return whether this process can be filtered."""
    try:
        return platform.machine() in _ARCHITECTURES and prctl(_PR_GET_SECCOMP) >= 0
    except OSError:
        return False


@cache
def prepared() -> bytes:
    """Return the filter for this machine in bytes, with _SELF where the process id belongs. Made once, for many processes."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program(platform.machine(), _SELF))


def restrict() -> None:
    """Filter the system calls of this process from now on. Raises OSError."""
    code = prepared().replace(struct.pack("=I", _SELF), struct.pack("=I", os.getpid()))
    buffer = ctypes.create_string_buffer(code)
    # struct sock_fprog: a number of instructions, and a pointer to them
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // _SIZE, ctypes.addressof(buffer)))
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, header)


def program(machine: str, pid: int) -> list[_Instruction]:
    """Return the filter for an architecture and a process, as classic BPF."""
    architecture, column = _ARCHITECTURES[machine]
    own = _Condition(0, (0,))
    conditional = {
        "openat": _allowed_if(_Condition(2, (0,), _WRITING)),
        "open": _allowed_if(_Condition(1, (0,), _WRITING)),
        "fcntl": _allowed_if(_Condition(1, _FCNTLS)),
        "ioctl": _allowed_if(_Condition(1, _IOCTLS)),
        "prctl": _allowed_if(_Condition(0, _PRCTLS)),
        "kill": _allowed_if(_Condition(0, (pid,))),
        "tgkill": _allowed_if(_Condition(0, (pid,))),
        # Without a new limit: to read one. A large document needs address space.
        "prlimit64": _allowed_if(
            *(own, _Condition(2, (0,)), _Condition(2, (0,), high=True)),
            otherwise=_allowed_if(own, _Condition(1, (_RLIMIT_AS,))),
        ),
        # Without an address: to the socket that it was given.
        "sendto": _allowed_if(_Condition(4, (0,)), _Condition(4, (0,), high=True)),
    }
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for number in _numbers(_UNCONDITIONAL, column):
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number in _numbers(_DEADLY, column):
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _KILL)]
    for name, checks in conditional.items():
        for number in _numbers((name,), column):
            code += [(_JUMP_EQUAL, 0, len(checks), number), *checks]
    # The C library has an older call for each newer one, and uses it if the kernel does not know the newer.
    code += [
        (_JUMP_AT_LEAST, 0, 1, NEWER),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        _REFUSED,
    ]
    return code


def _numbers(names: Sequence[str], column: int) -> Iterator[int]:
    for name in names:
        number = NUMBERS[name][column]
        if number is not None:
            yield number


def _allowed_if(*conditions: _Condition, otherwise: Sequence[_Instruction] = (_REFUSED,)) -> list[_Instruction]:
    """Return instructions that allow the call if all conditions hold, and continue with others if not."""
    code: list[_Instruction] = [(_RETURN, 0, 0, _ALLOW)]
    for condition in reversed(conditions):
        word = _ARGUMENTS + 8 * condition.argument + (4 if condition.high else 0)
        others, last = condition.values[:-1], condition.values[-1]
        code = [
            (_LOAD, 0, 0, word),
            (_AND, 0, 0, condition.mask),
            *((_JUMP_EQUAL, len(others) - at, 0, value) for at, value in enumerate(others)),
            (_JUMP_EQUAL, 0, len(code), last),
            *code,
        ]
    return [*code, *otherwise]
