"""`ocrfleet dispatch`: the control plane without HTTP."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from ocrfleet import logs
from ocrfleet.metrics.exposition import Exposition, served
from ocrfleet.storage.open import open_store
from producer.cli.options import read_settings
from producer.control.process import control_plane

ClerksOption = Annotated[
    int,
    typer.Option(
        min=0, max=64, help="Processes that take in what was submitted: fetch it, count its pages. 0: others do it."
    ),
]


def dispatch(*, clerks: ClerksOption = 1) -> None:
    """Take in what was submitted, keep the queue filled, publish again what got lost, deliver what has ended.

    [b]ocrfleet serve[/] does it, too, beside its HTTP API. Several may run: one leads, and when it dies another one does.
    Stops on SIGTERM or Ctrl-C.
    """
    settings = read_settings()
    logs.configure(settings.log_level)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopped.set())
    exposition = Exposition(settings)
    with (
        served(exposition, settings),
        control_plane(settings, open_store(settings), clerks=clerks, exposition=exposition, on_failure=stopped.set),
    ):
        stopped.wait()
