"""`ocrfleet serve`: the HTTP API, with the controller and the intake consumers beside it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
import uvicorn

from ocrfleet import logs
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import ConfigurationError
from ocrfleet.metrics.exposition import Exposition, served
from ocrfleet.profiles.profile import Profile
from ocrfleet.storage.open import open_store
from producer.api.app import create_app
from producer.api.auth import check_address
from producer.cli.connection import Connection
from producer.cli.dispatch import IntakeConsumersOption
from producer.cli.options import read_settings, with_profile
from producer.control.process import control_plane
from producer.documents.service import DocumentService
from producer.intake.batches import IntakeBatches
from producer.state.tokens import Tokens

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ocrfleet.settings import Settings

#: Bytes of a request's line and headers.
_LARGEST_HEAD = 16 << 10
#: Seconds that an idle connection is kept; seconds that requests get to finish when the server stops.
_KEEP_ALIVE, _GRACE = 30, 15
#: Connections that wait in the kernel to be accepted.
_BACKLOG = 2048


@with_profile
def serve(
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but a loopback address needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    intake_consumers: IntakeConsumersOption = 1,
    chosen: Profile,
) -> None:
    """Serve the HTTP API (/v1, described at /docs); run the controller and the intake consumers beside it.

    Clients need one of the tokens in OCRFLEET_API_TOKENS. S3 sources must lie in OCRFLEET_API_SOURCES. The profile given here
    is the default for submissions without one. Several servers may run: one of them leads.

    [b]OCRFLEET_API_TOKENS=$(openssl rand -hex 32) ocrfleet serve --host 0.0.0.0[/]

    Exit code: 0 stopped by SIGTERM or Ctrl-C; 2 usage; 3 misconfigured.
    """
    settings = read_settings()
    check_address(host, settings.api, stored=True)
    logs.configure(settings.log_level)
    store = open_store(settings)
    check_address(host, settings.api, stored=bool(Tokens(store).all()))
    ledger = Ledger(settings.redis_url.get_secret_value())
    service = DocumentService(store, ledger, settings)
    stopping = threading.Event()
    exposition = Exposition(settings)
    app = create_app(
        settings,
        store,
        ledger,
        service,
        IntakeBatches(store),
        profile=chosen,
        stopping=stopping,
        exposition=exposition,
    )
    fleet = control_plane(
        settings,
        store,
        consumers=intake_consumers,
        exposition=exposition,
        on_failure=lambda: os.kill(os.getpid(), signal.SIGTERM),
    )
    health = served(exposition, settings, missing=app.state.context.readiness.missing_now)
    try:
        run(app, settings, host, port, stopping, background=[health, fleet])
    finally:
        service.close()


def run(
    app: FastAPI,
    settings: Settings,
    host: str,
    port: int,
    stopping: threading.Event,
    *,
    background: Sequence[AbstractContextManager[object]] = (),
) -> None:
    """Serve an app, and run `background` beside it, until SIGTERM or Ctrl-C. Raises ConfigurationError when it can't listen."""
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            # The app's own lines leave out the query.
            access_log=False,
            server_header=False,
            ws="none",
            http=Connection,
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            limit_concurrency=settings.api.connections,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_GRACE,
        ),
        stopping,
    )

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        # For signals before uvicorn handles them, and for the one that it raises again when it has ended: the background
        # must end as well.
        signal.signal(number, stop)
    listener = _listener(host, port)
    with ExitStack() as stack:
        for part in background:
            stack.enter_context(part)
        server.run(sockets=[listener])
    if not server.started:
        raise ConfigurationError("the API did not start: see the log above")


def _listener(host: str, port: int) -> socket.socket:
    try:
        ((family, _, _, _, address), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        # Its connections inherit this. asyncio leaves it out for a socket without a protocol, and each response in two parts
        # then waits 40 ms for the client's kernel.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise ConfigurationError(f"--host {host} --port {port} can't be listened on: {error.strerror}") from error
    return listener


class _Server(uvicorn.Server):
    """Sets `stopping` on a signal, so that event streams end and don't delay the shutdown."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)
