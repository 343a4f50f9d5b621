"""A decoder that an attacker owns: attempts of each kind to reach what is not its own. A sandboxed program.

Each attempt returns when it succeeded and raises OSError when it was refused. Many use raw system calls, as an attacker would.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocrfleet.sandbox.child import Handler

SECRET = b"hunter2"
#: System calls that Python has no function for, by architecture: x86-64, aarch64.
_PTRACE, _READ_MEMORY, _WRITE_MEMORY = (101, 117), (310, 270), (311, 271)
_BPF, _URING, _MOUNT, _KEYCTL, _GET_DESCRIPTOR = (321, 280), (425, 425), (165, 40), (250, 219), (438, 438)
_PTRACE_SEIZE = 0x4206
_CLONE_NEWUSER = 0x10000000

Target = dict[str, Any]


def _system_call(numbers: tuple[int, int], *arguments: object) -> int:
    number = numbers[os.uname().machine == "aarch64"]
    result = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _expect(*, found: bool) -> None:
    if not found:
        raise OSError(errno.EACCES, "nothing was found")


def _read(path: str, wanted: bytes = b"") -> None:
    with Path(path).open("rb") as file:
        _expect(found=wanted in file.read(1 << 20))


def _open(path: str, flags: int) -> None:
    os.close(os.open(path, flags, 0o600))


def _map_for_writing(path: str) -> None:
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, 7) as memory:
        memory[:1] = b"x"


def _connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as connection:
        connection.connect(address)
        connection.send(b"secret")


def _listen() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _thread() -> None:
    try:
        thread = threading.Thread(target=os.getpid)
        thread.start()
    except RuntimeError as error:
        raise PermissionError(str(error)) from error
    thread.join()


def _spawn() -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def _parents_memory(call: tuple[int, int], target: Target) -> None:
    here = ctypes.create_string_buffer(len(SECRET))
    local = struct.pack("@PN", ctypes.addressof(here), len(SECRET))
    remote = struct.pack("@PN", target["address"], len(SECRET))
    _system_call(
        call, ctypes.c_int(target["parent"]), local, ctypes.c_ulong(1), remote, ctypes.c_ulong(1), ctypes.c_ulong(0)
    )


def _signals_by_a_socket(target: Target) -> None:
    """Let the kernel signal the parent when something arrives at a descriptor of this process."""
    fcntl.fcntl(target["connection"], fcntl.F_SETOWN, target["parent"])


def _parents_descriptor(target: Target) -> None:
    pidfd = os.pidfd_open(target["parent"])
    _system_call(_GET_DESCRIPTOR, ctypes.c_int(pidfd), ctypes.c_int(1), ctypes.c_uint(0))


#: What is attempted, with the facts about what there is to reach.
ATTEMPTS: dict[str, Callable[[Target], object]] = {
    "environment of the parent": lambda t: _read(f"/proc/{t['parent']}/environ", SECRET),
    "environment of the fork server": lambda t: _read(f"/proc/{t['server']}/environ"),
    "memory of the parent, to read": lambda t: _open(f"/proc/{t['parent']}/mem", os.O_RDONLY),
    "memory of the parent, to write": lambda t: _open(f"/proc/{t['parent']}/mem", os.O_RDWR),
    "memory of the fork server": lambda t: _open(f"/proc/{t['server']}/mem", os.O_RDWR),
    "addresses of the parent": lambda t: _read(f"/proc/{t['parent']}/maps", b"python"),
    "descriptors of the parent": lambda t: os.listdir(f"/proc/{t['parent']}/fd"),  # noqa: PTH208
    "program of the parent": lambda t: os.readlink(f"/proc/{t['parent']}/exe"),  # noqa: PTH115
    "files through the parent's root": lambda t: _read(f"/proc/{t['parent']}/root{t['file']}", SECRET),
    "process_vm_readv of the parent": lambda t: _parents_memory(_READ_MEMORY, t),
    "process_vm_writev of the parent": lambda t: _parents_memory(_WRITE_MEMORY, t),
    "ptrace of the parent": lambda t: _system_call(_PTRACE, _PTRACE_SEIZE, ctypes.c_long(t["parent"]), None, None),
    "pidfd_getfd of the parent": _parents_descriptor,
    "signal to the parent": lambda t: os.kill(t["parent"], signal.SIGWINCH),
    "signal to the process group": lambda _: os.kill(0, signal.SIGWINCH),
    "signal by pidfd": lambda t: signal.pidfd_send_signal(os.pidfd_open(t["parent"]), signal.SIGWINCH),
    "signal by F_SETOWN": _signals_by_a_socket,
    "priority of the parent": lambda t: os.setpriority(
        os.PRIO_PROCESS, t["parent"], os.getpriority(os.PRIO_PROCESS, t["parent"])
    ),
    "read a file": lambda t: _read(t["file"], SECRET),
    "write a file": lambda t: _open(t["file"], os.O_WRONLY),
    "append to a file": lambda t: _open(t["file"], os.O_WRONLY | os.O_APPEND),
    "truncate a file": lambda t: os.truncate(t["file"], 6),
    "open with truncation": lambda t: _open(t["file"], os.O_RDONLY | os.O_TRUNC),
    "map a file writable": lambda t: _map_for_writing(t["file"]),
    "create a file": lambda t: _open(f"{t['folder']}/new", os.O_WRONLY | os.O_CREAT),
    "create a file without a name": lambda t: _open(t["folder"], os.O_WRONLY | os.O_TMPFILE),
    "link a file": lambda t: os.link(t["file"], f"{t['folder']}/link"),
    "link by a symbolic link": lambda t: os.symlink(t["file"], f"{t['folder']}/symlink"),  # noqa: PTH211
    "rename a file": lambda t: os.rename(t["moved"], f"{t['folder']}/renamed"),  # noqa: PTH104
    "remove a file": lambda t: os.unlink(t["removed"]),  # noqa: PTH108
    "make a folder": lambda t: os.mkdir(f"{t['folder']}/made"),  # noqa: PTH102
    "list a folder": lambda t: os.listdir(t["folder"]),  # noqa: PTH208
    "change the mode of a file": lambda t: os.chmod(t["file"], 0o666),  # noqa: PTH101, S103
    "change the folder": lambda t: os.chdir(t["folder"]),
    "write to the document": lambda t: os.pwrite(t["document"], b"x", 0),
    "truncate the document": lambda t: os.ftruncate(t["document"], 0),
    "open the document anew": lambda t: _open(f"/proc/self/fd/{t['document']}", os.O_RDWR),
    "map the document writable": lambda t: mmap.mmap(t["document"], 1, prot=mmap.PROT_WRITE).close(),
    "UNIX socket": lambda t: _connect(socket.AF_UNIX, socket.SOCK_STREAM, t["unix"]),
    "abstract UNIX socket": lambda t: _connect(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{t['abstract']}"),
    "TCP": lambda t: _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", t["tcp"])),
    "TCP, to listen": lambda _: _listen(),
    "UDP": lambda t: _connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", t["udp"])),
    "DNS": lambda _: _connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53)),
    "netlink": lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "pair of sockets": lambda _: socket.socketpair(),
    "fork": lambda _: _fork(),
    "thread": lambda _: _thread(),
    "program": lambda _: _spawn(),
    "exec": lambda _: os.execv("/bin/true", ["true"]),  # noqa: S606
    "memory for programs (memfd)": lambda _: os.close(os.memfd_create("x")),
    "user namespace": lambda _: _system_call((272, 97), ctypes.c_int(_CLONE_NEWUSER)),
    "mount": lambda t: _system_call(_MOUNT, b"x", t["folder"].encode(), b"tmpfs", ctypes.c_ulong(0), None),
    "bpf": lambda _: _system_call(_BPF, ctypes.c_int(0), ctypes.create_string_buffer(64), ctypes.c_uint(64)),
    "io_uring": lambda _: _system_call(_URING, ctypes.c_uint(1), ctypes.create_string_buffer(256)),
    "keys of the kernel": lambda _: _system_call(_KEYCTL, ctypes.c_int(0), ctypes.c_int(-3), ctypes.c_int(1)),
    "other user": lambda _: os.setuid(1),
}


def attack(request: dict[str, Any], fd: int | None, shared: mmap.mmap | None) -> dict[str, Any]:
    """Answer whether an attempt succeeded, or what the shared memory has."""
    assert shared is not None
    match request:
        case {"attempt": str(name), "target": dict(target)}:
            target |= {"document": fd, "connection": _connection(), "server": os.getppid()}
            try:
                ATTEMPTS[name](target)
            except OSError as error:
                return {"refused": errno.errorcode.get(error.errno or 0, str(error))}
            return {"refused": None}
        case {"leave": str(text)}:
            shared[: len(text)] = text.encode()
        case _:
            return {"found": any(shared[:4096])}
    return {}


def _connection() -> int:
    return next(number for number in range(3, 100) if _is_socket(number))


def _is_socket(number: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith("socket:")  # noqa: PTH115
    except OSError:
        return False


def handler() -> Handler:
    return attack
