"""A child program for tests of the sandbox that behaves like broken decoders."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrfleet.errors import PermanentError, Reason
from tests.support.waiting import FOREVER

if TYPE_CHECKING:
    from mmap import mmap

    from ocrfleet.sandbox.child import Handler


#: passwords that this process got
_seen: list[str] = []


def misbehave(  # noqa: C901, PLR0911, PLR0912 - a list of misdeeds
    request: dict[str, Any], fd: int | None, shared: mmap | None
) -> dict[str, Any]:
    match request["do"]:
        case "echo":
            return {"echo": request["text"], "pid": os.getpid()}
        case "read":
            assert fd is not None
            return {"content": os.pread(fd, 100, 0).decode(), "descriptors": _open_descriptors()}
        case "write":
            assert shared is not None
            shared[:4] = b"page"
            return {"size": len(shared)}
        case "reveal":
            return {
                "environment": dict(os.environ),
                "arguments": sys.argv,
                "cwd": str(Path.cwd()),
                "limits": [resource.getrlimit(number)[1] for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)],
                "network": str(Path("/proc/self/ns/net").readlink()),
                "ignored": [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)],
            }
        case "connect":
            try:
                socket.create_connection(("127.0.0.1", request["port"]), timeout=FOREVER).close()
            except OSError:
                return {"connected": False}
            return {"connected": True}
        case "descriptors":
            opened = []
            try:
                while True:
                    opened.append(os.open(os.__file__, os.O_RDONLY))
            except OSError:
                for number in opened:
                    os.close(number)
                return {"opened": len(opened)}
        case "signal":
            os.kill(os.getpid(), request["number"])
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "hang":
            ctypes.PyDLL(None).pause()  # in C code, holding the GIL
        case "sleep":
            _sleep(request["seconds"], shared)
        case "memory":
            return {"size": len(bytearray(1 << 40))}
        case "leak":
            hoard = []
            while True:
                hoard.append(bytearray(1 << 20))
        case "unlock":
            _seen.extend(request["passwords"])
            if request["password"] not in (None, *request["passwords"]):
                raise PermanentError(Reason.NEEDS_PASSWORD, "locked")
            return {"seen": _seen}
        case "seek":
            _answer_and_seek(fd)
        case "permanent":
            raise PermanentError(Reason.TOO_LARGE, "the page is larger than the sky")
        case "bug":
            raise KeyError(f"{object()}")
        case "babble":
            os.write(_connection(), b"\xff\xff\xff\xff nonsense")
            time.sleep(FOREVER)
        case "hang up":
            os.close(_connection())
            time.sleep(FOREVER)
    return {}


def _sleep(seconds: float, shared: mmap | None) -> None:
    if shared is not None:
        shared[:4] = b"busy"
    time.sleep(seconds)


def _answer_and_seek(fd: int | None) -> None:
    """Answer, and move the position in the document for ever."""
    assert fd is not None
    answer = json.dumps({"result": {"seeking": True}}).encode()
    os.write(_connection(), struct.pack("!I", len(answer)) + answer)
    while True:
        os.lseek(fd, 0, os.SEEK_END)


def _open_descriptors() -> list[int]:
    return [number for number in range(1000) if _mode(number) is not None]


def _connection() -> int:
    return next(number for number in _open_descriptors() if stat.S_ISSOCK(_mode(number) or 0))


def _mode(number: int) -> int | None:
    try:
        return os.fstat(number).st_mode
    except OSError:
        return None


def handler() -> Handler:
    return misbehave
