"""The child's side of a sandbox: confines itself, then handles requests about one document until the parent is gone."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ocrfleet.errors import PermanentError
from ocrfleet.sandbox.confinement import confine, ruleset
from ocrfleet.sandbox.messages import receive_request, send

#: Handler of a request: the request, the document's descriptor (closed afterwards), the shared memory. It raises PermanentError
#: for the input's fault and MemoryError for a lack of memory.
Handler = Callable[[dict[str, Any], int | None, mmap.mmap | None], dict[str, Any]]

#: Address space for a mapped document, in addition, in bytes.
MAPPABLE = 1 << 40
#: File descriptors of a child: stdio, socket, shared memory, the document, files that imports open.
MAX_DESCRIPTORS = 32
#: Seconds after the deadline after which the kernel kills a child that its parent did not.
ALARM_GRACE = 2.0

_STDERR = 2

#: Bytes of address space that this process has for itself, once it is confined.
_allocatable = 0


def serve(handler: Handler, *, connection: int, shared: int | None, shared_size: int, memory: int) -> None:
    """Confine this process, then handle requests from the socket `connection` until the parent is gone.

    `memory` is the limit of allocations beyond those of now, `shared` the descriptor of the shared memory; sizes are in bytes.
    """
    # The alarm must end the process whatever its parent had blocked or ignored.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with socket.socket(fileno=connection) as parent:
        try:
            _close_all_but(connection, shared, ruleset())
            pixels = mmap.mmap(shared, shared_size) if shared is not None else None
            _limit(memory)
            confine()
        except OSError as error:
            send(parent, {"failed": f"{type(error).__name__}: {error}"})
            return
        send(parent, {"ready": True})
        while (request := receive_request(parent)) is not None:
            message, fds = request
            # The parent kills a child at its deadline. The kernel does so where the parent was stopped.
            signal.setitimer(signal.ITIMER_REAL, message["deadline"] + ALARM_GRACE)
            answer = _handle(handler, message["request"], fds[0] if fds else None, pixels)
            signal.setitimer(signal.ITIMER_REAL, 0)
            for fd in fds:
                os.close(fd)
            try:
                send(parent, answer)
            except OSError:
                return


def allow_mapping(size: int) -> None:
    """Raise the limit of address space for mapping a document of so many bytes."""
    if _allocatable:
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (min(_allocatable + size, most), most))


def _handle(handler: Handler, request: dict[str, Any], fd: int | None, shared: mmap.mmap | None) -> dict[str, Any]:
    try:
        return {"result": handler(request, fd, shared)}
    except PermanentError as error:
        return {"permanent": [error.reason, error.detail]}
    except MemoryError:
        return {"memory": True}
    except Exception as error:  # noqa: BLE001 - the boundary: each error is reported to the parent
        return {"error": type(error).__name__, "traceback": traceback.format_exc()[-20_000:]}


def _close_all_but(*kept: int | None) -> None:
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers, no paths
        if number > _STDERR and number not in kept:
            with suppress(OSError):  # that of the listing
                os.close(number)


def _limit(memory: int) -> None:
    """Limit what this process may use. Raises OSError."""
    global _allocatable  # noqa: PLW0603 - a limit is this whole process's
    with open("/proc/self/statm", encoding="ascii") as sizes:  # noqa: PTH123
        _allocatable = int(sizes.read().split()[0]) * mmap.PAGESIZE + memory
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = _allocatable + MAPPABLE if hard == resource.RLIM_INFINITY else min(_allocatable + MAPPABLE, hard)
    resource.setrlimit(resource.RLIMIT_AS, (min(_allocatable, most), most))
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),  # shared memory is written by mapping: no file has to grow
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
        (resource.RLIMIT_NPROC, 0),  # no process and no thread; root is exempt
    ):
        hard = resource.getrlimit(limit)[1]
        lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowest, lowest))
