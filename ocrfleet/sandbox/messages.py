"""Messages between the processes of a sandbox: JSON with a length prefix over a socket, and open descriptors beside it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from typing import Any

#: The most bytes of a message: a compromised child must not make its parent allocate more.
MAX_MESSAGE = 1 << 20
#: The most descriptors that come with a message.
_MOST_DESCRIPTORS = 3
_LENGTH = 4


def send(connection: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    body = json.dumps(message).encode()
    header = len(body).to_bytes(_LENGTH, "big")
    if fds:
        # Four bytes into an empty socket are never sent in part, and the descriptors travel with them.
        socket.send_fds(connection, [header], list(fds))
    else:
        connection.sendall(header)
    connection.sendall(body)


def receive(connection: socket.socket, until: float) -> dict[str, Any]:
    """Return the next message. Raises TimeoutError, EOFError, OSError, or ValueError for what is none."""
    length = int.from_bytes(_read(connection, _LENGTH, until), "big")
    if length > MAX_MESSAGE:
        raise ValueError("the message is too long")
    message = json.loads(_read(connection, length, until))
    if not isinstance(message, dict):
        raise ValueError("the message is no object")  # noqa: TRY004 - for the caller, an invalid value like others
    return message


def receive_request(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return the parent's next message and the descriptors that came with it, or None when the parent is gone."""
    try:
        header, fds, _, _ = socket.recv_fds(connection, _LENGTH, _MOST_DESCRIPTORS)
        if not header:
            return None
        body = connection.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL)
    except OSError:
        return None
    return json.loads(body), fds


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
