"""Sandbox: a child process for untrusted native code, as decoders that may crash, hang, exhaust the memory or attack.

The child program is a module with a function `handler`, which loads its libraries and returns the handler of requests
(ocrfleet/sandbox/child.py). Parent and child exchange JSON messages over a socket pair; the document is passed as an open file
descriptor, pixels are returned in shared memory. A child serves one document. It may read its own code and compute; what it may
not is in ocrfleet/sandbox/confinement.py and seccomp.py.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any

from ocrfleet.errors import FatalError, PageFaultError, PermanentError, Reason, TransientError
from ocrfleet.sandbox.fork_server import fork_server
from ocrfleet.sandbox.messages import receive, send

#: Seconds for the child to start, on a busy machine, and for its fork server to import; not counted against any page.
START_DEADLINE = 60.0
#: Seconds for a process to exit after its socket was closed.
EXIT_DEADLINE = 5.0

logger = logging.getLogger(__name__)


class _Ended(IntEnum):
    """Exit statuses with a meaning of their own."""

    ALARM = -signal.SIGALRM
    KILL = -signal.SIGKILL
    SYSTEM_CALL = -signal.SIGSYS


class Sandbox:
    """The parent's side: one child process, started at the first call and replaced for another document. Thread-safe.

    `memory` is the limit of the child's allocations beyond its own code, `shared` the size of the shared memory, in bytes.
    With the descriptor of a `file` of that size, the shared memory is that file: the child maps it, the parent reads the file.
    After `recycle` calls the child is replaced, because native code may leak memory. A program `alone` is forked from a server of
    its own: it has large libraries that others do without.
    """

    def __init__(
        self,
        module: str,
        *,
        memory: int,
        shared: int = 0,
        file: int | None = None,
        recycle: int = 500,
        alone: bool = False,
    ) -> None:
        self._module = module
        self._memory = memory
        self._recycle = recycle
        self._server = fork_server(module if alone else "documents")
        self._calls = 0
        self._document = ""
        #: the password that opened the document
        self._password: str | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        #: closed to have the child killed; reports how it ended
        self._control: socket.socket | None = None
        #: process id of the child
        self.pid: int | None = None
        self._shared_size = shared
        self._shared_fd: int | None = None
        #: sparse: only pages that were touched cost memory, and never more than `shared`
        self.shared: mmap.mmap | None = None
        if file is not None:
            # Not mapped here: a child may shrink it where seccomp is missing.
            self._shared_fd = os.dup(file)
        elif shared:
            self._shared_fd = _anonymous_file(shared)
            self.shared = mmap.mmap(self._shared_fd, shared)

    def call(
        self,
        request: dict[str, Any],
        *,
        fd: int | None = None,
        deadline: float,
        document: str = "",
        passwords: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Let the child handle `request`, with the open file `fd`, within `deadline` seconds; blocks.

        A child that had another `document` is replaced first. Only for a document that needs one, the request gets a password, as
        `passwords`: each goes to a child of its own. The password that opened a named document is kept for its next calls.

        Raises PermanentError as the child's handler raised it, PageFaultError when the child crashed, ran out of memory
        or time, FatalError when no child can be started, and TransientError after `close`.
        """
        with self._lock:
            if document != self._document:
                self._stop()
                if self.shared is not None:
                    _empty(self.shared)
                self._document, self._password = document, None
            if not document:
                self._password = None
            left = deadline
            known = self._password
            for tried in (None, *passwords) if known is None else (known,):
                if tried != known:
                    self._stop()
                connection = self._running()
                until = time.monotonic() + left  # the start of a child counts against no document
                try:
                    passed = [] if tried is None else [tried]
                    answer = self._call(connection, request | {"passwords": passed}, fd, until, deadline)
                except PermanentError as error:
                    if error.reason is not Reason.NEEDS_PASSWORD:
                        self._password = tried
                        raise
                    refusal = error
                    left = until - time.monotonic()
                else:
                    self._password = tried
                    return answer
            raise refusal

    def close(self) -> None:
        """Kill the child, even if it is busy; a call that waits for it raises TransientError. Idempotent."""
        self._closed = True
        control = self._control
        if control is not None:
            _shut(control)
        with self._lock:
            self._stop()
            if self._shared_fd is not None:
                os.close(self._shared_fd)
                self._shared_fd = None

    def _call(
        self, connection: socket.socket, request: dict[str, Any], fd: int | None, until: float, deadline: float
    ) -> dict[str, Any]:
        self._calls += 1
        try:
            connection.settimeout(max(until - time.monotonic(), 0.001))
            send(connection, {"deadline": deadline, "request": request}, [] if fd is None else [fd])
            answer = receive(connection, until)
        except TimeoutError:
            self._stop()
            raise self._fault(Reason.RENDER_DEADLINE, deadline) from None
        except (EOFError, OSError, ValueError):
            raise self._post_mortem(deadline) from None
        return self._open_answer(answer)

    def _running(self) -> socket.socket:
        """Return the socket of a child that is ready for a request."""
        # An idle child may have been killed by the out-of-memory killer, which is not the next page's fault.
        if self._control is not None and (self._calls >= self._recycle or _has_news(self._control)):
            self._stop()
        if self._socket is None:
            self._start()
        # Checked after the start: either `close` finds the child, or this finds that the sandbox was closed.
        if self._closed:
            self._stop()
            raise TransientError("the sandbox was closed")
        assert self._socket is not None  # noqa: S101 - for the type checker: _start sets it
        return self._socket

    def _start(self) -> None:
        if self._closed:
            raise TransientError("the sandbox was closed")
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._control, controlled = socket.socketpair()
        fds = [theirs.fileno(), controlled.fileno(), *([] if self._shared_fd is None else [self._shared_fd])]
        until = time.monotonic() + START_DEADLINE
        why: object = None
        try:
            with theirs, controlled:
                self._server.fork(self._module, memory=self._memory, shared_size=self._shared_size, fds=fds)
            started = receive(self._control, until)
            why = started.get("failed")
            self.pid = started["pid"]
            confined = receive(ours, until)
            why = confined.get("failed")
            confined["ready"]
        except (EOFError, OSError, ValueError, KeyError) as error:
            self._stop()
            if self._closed:
                raise TransientError("the sandbox was closed") from error
            detail = f": {why}" if why else f" with {self._memory >> 20} MiB of memory"
            raise FatalError(f"{self._module} could not be started{detail}") from error
        self._calls = 0

    def _stop(self) -> None:
        """End the child and wait until it is gone."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._control is not None:
            with self._control as control:
                _shut(control)
                with suppress(EOFError, OSError, ValueError):
                    receive(control, time.monotonic() + EXIT_DEADLINE)
            self._control = self.pid = None

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

    def _post_mortem(self, deadline: float) -> PageFaultError | TransientError:
        """Return the error for the way in which the child ended."""
        status: int | None = None
        if self._control is not None:
            try:
                status = receive(self._control, time.monotonic() + EXIT_DEADLINE)["status"]
            except EOFError:
                status = _Ended.KILL  # the fork server was killed, and its children with it
            except (OSError, ValueError, KeyError):
                pass
        self._stop()
        if self._closed:
            return TransientError("the sandbox was closed")
        match status:
            case None:
                return self._fault(Reason.RENDER_CRASHED, "it stopped answering")
            case _Ended.ALARM:
                # The parent was stopped or the machine suspended beyond the deadline; the child's alarm was not.
                return self._fault(Reason.RENDER_DEADLINE, deadline)
            case _Ended.KILL:
                # Killed by the out-of-memory killer, which prefers the child, or by a person. The page may be tried again in both
                # cases.
                return self._fault(Reason.RENDER_MEMORY)
            case _Ended.SYSTEM_CALL:
                logger.error("sandbox.attack_suspected %s made a system call that no decoder makes", self._module)
        return self._fault(
            Reason.RENDER_CRASHED, signal.Signals(-status).name if status < 0 else f"exit status {status}"
        )

    def _fault(self, reason: Reason, fact: float | str = "") -> PageFaultError:
        """Return a fault. Its message is part of outputs that are compared byte for byte: no pids, addresses, times or paths."""
        match reason:
            case Reason.RENDER_DEADLINE:
                return PageFaultError(reason, f"decoding took longer than {fact:g} s")
            case Reason.RENDER_MEMORY:
                return PageFaultError(reason, f"decoding needed more than {self._memory >> 20} MiB of memory")
            case _:
                return PageFaultError(reason, f"the decoder crashed ({fact}): the file is probably damaged")


def _shut(control: socket.socket) -> None:
    with suppress(OSError):
        control.shutdown(socket.SHUT_WR)


def _has_news(control: socket.socket) -> bool:
    """Return whether a child has ended."""
    control.settimeout(0)
    try:
        control.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _empty(memory: mmap.mmap) -> None:
    """Drop the content of shared memory: it is of another document."""
    if hasattr(mmap, "MADV_REMOVE"):
        memory.madvise(mmap.MADV_REMOVE)
    else:
        memory[:] = bytes(len(memory))


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
