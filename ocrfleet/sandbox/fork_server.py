"""The parent's side of the fork server, which starts the processes that open documents (ocrfleet/sandbox/fork_server_main.py)."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from ocrfleet.sandbox.confinement import hide_memory
from ocrfleet.sandbox.messages import send

#: Seconds for the server to exit after its socket was closed.
_EXIT_DEADLINE = 5.0

_lock = threading.Lock()
_servers: dict[str, ForkServer] = {}


class ForkServer:
    """A process that forks children, started when it is needed, and again after it died. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def fork(self, module: str, *, memory: int, shared_size: int, fds: Sequence[int]) -> None:
        """Ask for a child that runs `module`. `fds` are its socket, its control socket and its shared memory. Raises OSError."""
        request = {"module": module, "memory": memory, "shared_size": shared_size}
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._end()
            if self._connection is None:
                self._start()
            assert self._connection is not None  # noqa: S101 - for the type checker: _start sets it
            send(self._connection, request, fds)

    def close(self) -> None:
        """End the server and its children. Idempotent."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        # The children have this process' user: none of them may read its memory or its environment.
        hide_memory()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-s", *(["-B"] if sys.dont_write_bytecode else [])),
                    *("-m", "ocrfleet.sandbox.fork_server_main", str(theirs.fileno())),
                ],
                # The server has the parent's import path and nothing else of its environment.
                env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path.startswith(os.sep))},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C is sent to the terminal's process group; the parent decides whether a page is interrupted.
                start_new_session=True,
            )
        self._connection = ours

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            try:
                self._process.wait(_EXIT_DEADLINE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def fork_server(name: str) -> ForkServer:
    """Return this process's server of that name. It ends with the process."""
    with _lock:
        if not _servers:
            atexit.register(_close_all)
        return _servers.setdefault(name, ForkServer())


def _close_all() -> None:
    for server in _servers.values():
        server.close()
