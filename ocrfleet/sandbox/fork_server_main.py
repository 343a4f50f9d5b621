"""The fork server: imports decoders once, then forks a child for each document. `python -m ocrfleet.sandbox.fork_server_main FD`.

It opens no document, and has no secret and no network. A request comes with the child's socket, its control socket and perhaps
the shared memory. On the control socket the server reports the child's process id and how the child ended; the parent closes it
to have the child killed. When the parent is gone, the server ends, and the kernel ends its children.
"""

from __future__ import annotations

import gc
import importlib
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from ocrfleet.sandbox import confinement
from ocrfleet.sandbox.child import serve
from ocrfleet.sandbox.messages import receive_request, send

if TYPE_CHECKING:
    from ocrfleet.sandbox.child import Handler


class _Server:
    def __init__(self, parent: socket.socket) -> None:
        self._parent = parent
        self._selector = selectors.DefaultSelector()
        self._selector.register(parent, selectors.EVENT_READ)
        self._woken, waking = os.pipe()
        for fd in (self._woken, waking):
            os.set_blocking(fd, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        signal.set_wakeup_fd(waking)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        #: control socket of each child, by process id
        self._children: dict[int, socket.socket] = {}

    def run(self) -> None:
        """Serve requests until the parent is gone."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._parent:
                    request = receive_request(self._parent)
                    if request is None:
                        return
                    self._fork(*request)
                elif key.fileobj == self._woken:
                    os.read(self._woken, 4096)
                    self._reap()
                elif key.data in self._children:
                    # Closed by the parent; the child is not reaped yet, so that the number is still its own.
                    self._selector.unregister(key.fileobj)
                    os.kill(key.data, signal.SIGKILL)

    def _fork(self, request: dict[str, Any], fds: list[int]) -> None:
        connection, control_fd = fds[:2]
        shared = fds[2] if request["shared_size"] else None
        control = socket.socket(fileno=control_fd)
        try:
            handler = _handler(request["module"])
            confinement.prepare()
            pid = os.fork()
        except Exception as error:  # noqa: BLE001 - the parent reports it
            with suppress(OSError):
                send(control, {"failed": f"{type(error).__name__}: {error}"})
            control.close()
        else:
            if pid == 0:
                _become_child(handler, connection, shared, request)
            self._children[pid] = control
            self._selector.register(control, selectors.EVENT_READ, pid)
            with suppress(OSError):
                send(control, {"pid": pid})
        for fd in (connection, *fds[2:]):
            os.close(fd)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            control = self._children.pop(pid)
            with suppress(KeyError):
                self._selector.unregister(control)
            with suppress(OSError):
                send(control, {"status": os.waitstatus_to_exitcode(status)})
            control.close()


@cache
def _handler(module: str) -> Handler:
    """Import a program, whose `handler` loads what it needs for any document."""
    made: Handler = importlib.import_module(module).handler()
    # The collector writes to the objects that it visits, and children would copy them.
    gc.collect()
    gc.freeze()
    return made


def _become_child(handler: Handler, connection: int, shared: int | None, request: dict[str, Any]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        confinement.die_with(_PID)
        serve(
            handler,
            connection=connection,
            shared=shared,
            shared_size=request["shared_size"],
            memory=request["memory"],
        )
    finally:
        # Nothing of the server's is closed, flushed or reported by a child.
        os._exit(1 if sys.exc_info()[0] else 0)


_PID = os.getpid()


def main() -> None:
    # Signals to the process group or from a service manager: the parent drains first, then it closes its sockets.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    confinement.become_first_victim()
    confinement.leave_networks()
    confinement.hide_memory()
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        _Server(parent).run()


if __name__ == "__main__":
    main()
