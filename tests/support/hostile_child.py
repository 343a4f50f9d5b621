"""A program with secrets that opens documents by a decoder of an attacker: prints what the attacker reached, as JSON.

    python -m tests.support.hostile_child FOLDER [--without-namespaces]

First in a process that is not confined, to show that the attempts are real; then in a sandbox.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
import socket
import struct
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ocrfleet.errors import PageFaultError
from ocrfleet.sandbox.confinement import support
from ocrfleet.sandbox.sandbox import Sandbox
from tests.support.fakes.hostile import ATTEMPTS, SECRET

_KILLED = "killed"
_MEMORY = 64 << 20


def main() -> None:
    folder = Path(sys.argv[1])
    if "--without-namespaces" in sys.argv:
        _forbid_namespaces()
    signal.signal(signal.SIGWINCH, signal.SIG_IGN)
    secret = ctypes.create_string_buffer(SECRET)
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix, abstract = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        unix.bind(str(folder / "socket"))
        abstract.bind(f"\0ocrfleet-test-{os.getpid()}")
        for listener in (unix, abstract):
            listener.listen()
        target = {
            "parent": os.getpid(),
            "address": ctypes.addressof(secret),
            "folder": str(folder),
            "file": str(folder / "file"),
            "moved": str(folder / "moved"),
            "removed": str(folder / "removed"),
            "unix": str(folder / "socket"),
            "abstract": f"ocrfleet-test-{os.getpid()}",
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
        }
        # A mount would outlive this program.
        free = {name: _unconfined(name, target, folder) for name in ATTEMPTS if name != "mount"}
        confined = _confined(target, folder)
    json.dump({"free": free, "confined": confined, "missing": support().missing}, sys.stdout)


def _prepare(folder: Path) -> None:
    for made in ("new", "link", "symlink", "renamed"):
        (folder / made).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        (folder / "made").rmdir()
    for name in ("file", "moved", "removed", "document"):
        (folder / name).write_bytes(SECRET)


def _unconfined(name: str, target: dict[str, Any], folder: Path) -> str | None:
    """Return None for an attempt that succeeded in a child of the same user, else why not."""
    _prepare(folder)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        fd = os.open(folder / "document", os.O_RDONLY)
        _, ours = socket.socketpair()
        with suppress(BaseException):
            facts = target | {"document": fd, "connection": ours.fileno(), "server": os.getppid()}
            try:
                ATTEMPTS[name](facts)
                os.write(writing, b"\n")
            except OSError as error:
                os.write(writing, errno.errorcode.get(error.errno or 0, str(error)).encode())
        os._exit(0)
    os.close(writing)
    answer = b""
    while chunk := os.read(reading, 100):
        answer += chunk
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    # A program that was executed wrote nothing.
    return None if answer in (b"\n", b"") and status == 0 else answer.decode() or _KILLED


def _confined(target: dict[str, Any], folder: Path) -> dict[str, str | None]:
    sandbox = Sandbox("tests.support.fakes.hostile", memory=_MEMORY, shared=1 << 16)
    reached: dict[str, str | None] = {}
    for name in ATTEMPTS:
        _prepare(folder)
        fd = os.open(folder / "document", os.O_RDONLY)
        try:
            answer = sandbox.call({"attempt": name, "target": target}, fd=fd, deadline=30)
            reached[name] = answer["refused"]
        except PageFaultError as fault:
            reached[name] = _KILLED if "SIGSYS" in fault.detail else fault.detail
        finally:
            os.close(fd)
        if any((folder / file).read_bytes() != SECRET for file in ("file", "moved", "removed", "document")):
            reached[name] = None
    sandbox.call({"leave": "page of another document"}, deadline=30, document="a")
    found = sandbox.call({}, deadline=30, document="b")["found"]
    reached["shared memory of another document"] = None if found else "empty"
    sandbox.close()
    return reached


def _forbid_namespaces() -> None:
    """Refuse unshare(2), as the default filters of Docker and Kubernetes do."""
    number = {"x86_64": 272, "aarch64": 97}[platform.machine()]
    refused, allowed = 0x00050000 | errno.EPERM, 0x7FFF0000
    code = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, refused), (0x06, 0, 0, allowed))
    buffer = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in code))
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(buffer)))
    if libc.prctl(22, 2, header, 0, 0):
        raise OSError("no filter of system calls")


if __name__ == "__main__":
    assert threading.active_count() == 1
    main()
