"""The filter of system calls, run by an interpreter of its instructions, for both architectures."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from ocrfleet.sandbox.seccomp import program
from ocrfleet.sandbox.system_calls import NUMBERS

PID = 4711
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOWED, KILLED, REFUSED, UNKNOWN = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
F_SETOWN = 8
#: Numbers of limits, alike on both architectures.
RLIMIT_NOFILE, RLIMIT_AS = 7, 9


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """Run the filter as the kernel does (struct seccomp_data: number, architecture, address, six arguments)."""
    six = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=iIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *six)
    code, at, accumulator = program(machine, PID), 0, 0
    while True:
        operation, when, otherwise, value = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                at += when if accumulator == value else otherwise
            case 0x35:
                at += when if accumulator >= value else otherwise
            case _:
                return value


def call(machine: str, name: str, *arguments: int) -> int:
    number = NUMBERS[name][list(ARCHITECTURES).index(machine)]
    assert number is not None
    return verdict(machine, number, *arguments)


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("read", (3, 0, 10), ALLOWED),
        ("mmap", (0, 4096), ALLOWED),
        ("futex", (), ALLOWED),
        ("exit_group", (), ALLOWED),
        ("openat", (-100 & 0xFFFFFFFF, 1, os.O_RDONLY | os.O_CLOEXEC), ALLOWED),
        ("openat", (0, 1, os.O_WRONLY), REFUSED),
        ("openat", (0, 1, os.O_RDWR), REFUSED),
        ("openat", (0, 1, os.O_RDONLY | os.O_TRUNC), REFUSED),
        ("openat", (0, 1, os.O_RDONLY | os.O_CREAT), REFUSED),
        ("openat", (0, 1, os.O_TMPFILE), REFUSED),
        ("kill", (PID, 6), ALLOWED),
        ("kill", (PID + 1, 6), REFUSED),
        ("kill", (0, 6), REFUSED),
        ("tgkill", (PID, PID, 6), ALLOWED),
        ("tgkill", (1, 1, 6), REFUSED),
        ("fcntl", (3, 0), ALLOWED),
        ("fcntl", (3, 1), ALLOWED),
        ("fcntl", (3, 1030), ALLOWED),
        ("fcntl", (3, F_SETOWN, 1), REFUSED),
        ("ioctl", (3, 0x5401), ALLOWED),
        ("ioctl", (3, 0x5412), REFUSED),
        ("prlimit64", (0, RLIMIT_NOFILE), ALLOWED),
        ("prlimit64", (0, RLIMIT_NOFILE, 16), REFUSED),
        ("prlimit64", (0, RLIMIT_NOFILE, 1 << 32), REFUSED),
        ("prlimit64", (0, RLIMIT_AS, 16), ALLOWED),
        ("prlimit64", (1, RLIMIT_NOFILE), REFUSED),
        ("prlimit64", (1, RLIMIT_AS, 16), REFUSED),
        ("sendto", (3, 1, 1, 0, 0, 0), ALLOWED),
        ("sendto", (3, 1, 1, 0, 1 << 40, 16), REFUSED),
        ("sendto", (3, 1, 1, 0, 16, 16), REFUSED),
        ("prctl", (4, 1), REFUSED),
        ("execve", (), KILLED),
        ("ptrace", (), KILLED),
        ("io_uring_setup", (), KILLED),
    ],
)
def test_calls_and_arguments(machine: str, name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert call(machine, name, *arguments) == expected


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_not_listed_is_refused(machine: str) -> None:
    listed = {numbers[list(ARCHITECTURES).index(machine)] for numbers in NUMBERS.values()}
    for number in set(range(600)) - listed:
        assert verdict(machine, number) == (REFUSED if number < 424 else UNKNOWN), number


def test_calls_by_another_interface_end_the_process() -> None:
    assert verdict("x86_64", 0, architecture=0x40000003) == KILLED  # i386
    assert verdict("x86_64", 0x40000000) == KILLED  # x32


def test_the_filter_is_short_enough_for_the_kernel() -> None:
    for machine in ARCHITECTURES:
        assert len(program(machine, PID)) < 4096
