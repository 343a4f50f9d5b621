"""Sandbox: a child process for untrusted native code, as decoders that may crash, hang or exhaust the memory.

The parent uses `Sandbox`, the child `serve`; a child program is a module that ends in
`if __name__ == "__main__": serve(handler)`. They exchange JSON messages with a length prefix over a socket pair; the
document is passed as an open file descriptor, pixels are returned in shared memory. The child has no credentials in its
environment, no network where the kernel allows it, writes no file, and cannot outlive its parent.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ocrfleet.errors import FatalError, PageFaultError, PermanentError, Reason, TransientError

#: Handler of a request in the child: the request, the document's descriptor (closed afterwards), the shared memory.
Handler = Callable[[dict[str, Any], int | None, mmap.mmap | None], dict[str, Any]]

#: Address space of a child before it opens anything: 126 MB with MuPDF, Pillow and pydantic imported (measured), doubled.
BASE_MEMORY = 256 << 20
#: Address space for a mapped document, in addition, in bytes.
MAPPABLE = 1 << 40
#: The most bytes of a message: a compromised child must not make its parent allocate more.
MAX_MESSAGE = 1 << 20
#: File descriptors of a child: stdio, socket, shared memory, the document, files that imports open.
MAX_DESCRIPTORS = 32
#: Seconds for the child to start, on a busy machine; not counted against any page.
START_DEADLINE = 60.0
#: Seconds after the deadline after which the kernel kills a child that its parent did not.
ALARM_GRACE = 2.0
#: Seconds for a process to exit after its socket was closed.
EXIT_DEADLINE = 5.0

_LENGTH = 4
#: Bytes of address space that this process has for itself, once it is confined.
_allocatable = 0
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000

logger = logging.getLogger(__name__)


class Sandbox:
    """The parent's side: one child process, started at the first call and restarted after it died. Thread-safe.

    `memory` is the limit of the child's allocations beyond its own code, `shared` the size of the shared memory, in bytes.
    With the descriptor of a `file` of that size, the shared memory is that file: the child maps it, the parent reads the file.
    After `recycle` calls the child is replaced, because native code may leak memory.
    """

    def __init__(
        self, module: str, *, memory: int, shared: int = 0, file: int | None = None, recycle: int = 500
    ) -> None:
        self._module = module
        self._memory = memory
        self._recycle = recycle
        self._calls = 0
        self._closed = False
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._shared_size = shared
        self._shared_fd: int | None = None
        #: sparse: only pages that were touched cost memory, and never more than `shared`
        self.shared: mmap.mmap | None = None
        if file is not None:
            # Not mapped here: a child may shrink it.
            self._shared_fd = os.dup(file)
        elif shared:
            self._shared_fd = _anonymous_file(shared)
            self.shared = mmap.mmap(self._shared_fd, shared)

    def call(self, request: dict[str, Any], *, fd: int | None = None, deadline: float) -> dict[str, Any]:
        """Let the child handle `request`, with the open file `fd`, within `deadline` seconds; blocks.

        Raises PermanentError as the child's handler raised it, PageFaultError when the child crashed, ran out of memory
        or time, FatalError when no child can be started, and TransientError after `close`.
        """
        with self._lock:
            connection, process = self._running()
            self._calls += 1
            message = {"deadline": deadline, "request": request}
            try:
                answer = _exchange(connection, message, fd, deadline)
            except TimeoutError:
                self._stop()
                raise self._fault(Reason.RENDER_DEADLINE, deadline) from None
            except (EOFError, OSError, ValueError):
                raise self._post_mortem(process, deadline) from None
            return self._open_answer(answer)

    def close(self) -> None:
        """Kill the child, even if it is busy; a call that waits for it raises TransientError. Idempotent."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._stop()
            if self._shared_fd is not None:
                os.close(self._shared_fd)
                self._shared_fd = None

    def _running(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        """Return a child that is ready for a request."""
        # An idle child may have been killed by the out-of-memory killer, which is not the next page's fault.
        if self._process is not None and (self._calls >= self._recycle or self._process.poll() is not None):
            self._stop()
        if self._process is None:
            self._start()
        # Checked after the start: either `close` finds the process, or this finds that the sandbox was closed.
        if self._closed:
            self._stop()
            raise TransientError("the sandbox was closed")
        assert self._socket is not None  # noqa: S101 - for the type checker: _start sets both
        assert self._process is not None  # noqa: S101
        return self._socket, self._process

    def _start(self) -> None:
        if self._closed:
            raise TransientError("the sandbox was closed")
        ours, theirs = socket.socketpair()
        inherited = [fd for fd in (theirs.fileno(), self._shared_fd) if fd is not None]
        shared_fd = -1 if self._shared_fd is None else self._shared_fd
        arguments = [theirs.fileno(), shared_fd, self._shared_size, self._memory]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-s", "-B", "-m", self._module, *map(str, arguments)],
                    # The child has the parent's import path and nothing else of its environment.
                    env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path.startswith(os.sep))},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=inherited,
                    # Ctrl-C is sent to the terminal's process group; the parent decides whether a page is interrupted.
                    start_new_session=True,
                )
            self._socket = ours
            self._calls = 0
            ours.settimeout(START_DEADLINE)
            _receive(ours, time.monotonic() + START_DEADLINE)
        except (EOFError, OSError, ValueError) as error:
            ours.close()
            self._stop()
            if self._closed:
                raise TransientError("the sandbox was closed") from error
            raise FatalError(f"{self._module} could not be started with {self._memory >> 20} MiB of memory") from error

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _open_answer(self, answer: dict[str, Any]) -> dict[str, Any]:
        match answer:
            case {"result": dict(result)}:
                return result
            case {"permanent": [str(reason), str(detail)]} if reason in set(Reason):
                raise PermanentError(Reason(reason), detail)
            case {"memory": True}:
                error = self._fault(Reason.RENDER_MEMORY)
            case {"error": str(name), "traceback": str(trace)}:
                logger.error("sandbox.handler_raised %s:\n%s", self._module, trace)
                error = PageFaultError(Reason.INTERNAL_ERROR, f"{self._module} raised {name}: please report it")
            case _:
                error = self._fault(Reason.RENDER_CRASHED, "it answered nonsense")
        # The state of such a child is unknown: the next page gets a new one.
        self._stop()
        raise error

    def _post_mortem(self, process: subprocess.Popen[bytes], deadline: float) -> PageFaultError | TransientError:
        """Return the error for the way in which the child ended."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(EXIT_DEADLINE)
        status = process.returncode  # before _stop, which kills a process that still runs
        self._stop()
        if self._closed:
            return TransientError("the sandbox was closed")
        if status is None:
            return self._fault(Reason.RENDER_CRASHED, "it stopped answering")
        if status == -signal.SIGALRM:
            # The parent was stopped or the machine suspended beyond the deadline; the child's alarm was not.
            return self._fault(Reason.RENDER_DEADLINE, deadline)
        if status == -signal.SIGKILL:
            # Killed by the out-of-memory killer, which prefers the child (_confine), or by a person. The page may be tried
            # again in both cases.
            return self._fault(Reason.RENDER_MEMORY)
        if status < 0:
            return self._fault(Reason.RENDER_CRASHED, signal.Signals(-status).name)
        return self._fault(Reason.RENDER_CRASHED, f"exit status {status}")

    def _fault(self, reason: Reason, fact: float | str = "") -> PageFaultError:
        """Return a fault. Its message is part of outputs that are compared byte for byte: no pids, addresses, times or paths."""
        match reason:
            case Reason.RENDER_DEADLINE:
                return PageFaultError(reason, f"decoding took longer than {fact:g} s")
            case Reason.RENDER_MEMORY:
                return PageFaultError(reason, f"decoding needed more than {self._memory >> 20} MiB of memory")
            case _:
                return PageFaultError(reason, f"the decoder crashed ({fact}): the file is probably damaged")


def serve(handler: Handler) -> None:
    """Run the child: confine this process, then handle requests until the parent is gone.

    The handler's own imports run under the limits. It raises PermanentError for the input's fault and
    MemoryError for a lack of memory.
    """
    connection_fd, shared_fd, shared_size, memory = map(int, sys.argv[1:])
    _confine(memory + shared_size)
    shared = mmap.mmap(shared_fd, shared_size) if shared_size else None
    with socket.socket(fileno=connection_fd) as connection:
        fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
        _send(connection, {"ready": True})
        while (request := _next_request(connection)) is not None:
            message, fd = request
            # An end of file can't be seen from inside a decoder that hangs: the kernel ends it, by SIGIO when the parent
            # is gone (it says nothing while it waits, so nothing else can happen to the socket) or by SIGALRM.
            signal.setitimer(signal.ITIMER_REAL, message["deadline"] + ALARM_GRACE)
            fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
            answer = _handle(handler, message["request"], fd, shared)
            fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) & ~os.O_ASYNC)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if fd is not None:
                os.close(fd)
            try:
                _send(connection, answer)
            except OSError:
                return


def _handle(handler: Handler, request: dict[str, Any], fd: int | None, shared: mmap.mmap | None) -> dict[str, Any]:
    try:
        return {"result": handler(request, fd, shared)}
    except PermanentError as error:
        return {"permanent": [error.reason, error.detail]}
    except MemoryError:
        return {"memory": True}
    except Exception as error:  # noqa: BLE001 - the boundary: each error is reported to the parent
        return {"error": type(error).__name__, "traceback": traceback.format_exc()[-20_000:]}


def allow_mapping(size: int) -> None:
    """Raise the limit of address space for mapping a document of so many bytes."""
    if _allocatable:
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (min(_allocatable + size, most), most))


def _confine(memory: int) -> None:
    """Drop privileges that a decoder does not need. Best effort where the kernel may refuse; the limits are mandatory."""
    # Signals to the process group or from a service manager: the parent drains first, then the child sees an end of file.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The alarm must end the process whatever this thread's parent had blocked or ignored.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())

    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123
        score.write("1000")  # out of memory, a decoder should be killed first

    libc = ctypes.CDLL(None, use_errno=True)
    # As root a network namespace needs nothing more; others need a user namespace around it, where that is allowed.
    if hasattr(libc, "unshare") and libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # No PR_SET_PDEATHSIG: it fires when the *thread* that started us ends, and that is a thread of some pool.

    global _allocatable  # noqa: PLW0603 - a limit is this whole process's
    _allocatable = BASE_MEMORY + memory
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


def _anonymous_file(size: int) -> int:
    """Return the descriptor of an unnamed file in memory, of fixed size where the kernel supports that."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    fd = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, size)
    # A child that shrank it would have its parent killed by SIGBUS.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def _exchange(connection: socket.socket, message: dict[str, Any], fd: int | None, deadline: float) -> dict[str, Any]:
    until = time.monotonic() + deadline
    connection.settimeout(deadline)
    _send(connection, message, fd)
    return _receive(connection, until)


def _send(connection: socket.socket, message: dict[str, Any], fd: int | None = None) -> None:
    body = json.dumps(message).encode()
    header = len(body).to_bytes(_LENGTH, "big")
    if fd is None:
        connection.sendall(header)
    else:
        # Four bytes into an empty socket are never sent in part, and the descriptor travels with them.
        socket.send_fds(connection, [header], [fd])
    connection.sendall(body)


def _receive(connection: socket.socket, until: float) -> dict[str, Any]:
    """Return the next message. Raises TimeoutError, EOFError, OSError, or ValueError for what is none."""
    length = int.from_bytes(_read(connection, _LENGTH, until), "big")
    if length > MAX_MESSAGE:
        raise ValueError("the message is too long")
    message = json.loads(_read(connection, length, until))
    if not isinstance(message, dict):
        raise ValueError("the message is no object")  # noqa: TRY004 - for the caller, an invalid value like others
    return message


def _read(connection: socket.socket, size: int, until: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        remaining = until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def _next_request(connection: socket.socket) -> tuple[dict[str, Any], int | None] | None:
    """Return the parent's next message and the descriptor that came with it, or None when the parent is gone."""
    try:
        header, fds, _, _ = socket.recv_fds(connection, _LENGTH, 1)
        if not header:
            return None
        body = connection.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL)
    except OSError:
        return None
    return json.loads(body), fds[0] if fds else None
