"""`ocrfleet dispatch`: the controller and the intake consumers, without an HTTP API."""

from __future__ import annotations

from typing import Annotated

import typer

from ocrfleet import logs
from ocrfleet.metrics.exposition import Exposition, served
from ocrfleet.storage.open import open_store
from producer.cli.options import read_settings
from producer.cli.stopping import stopped_by_signals
from producer.control.process import control_plane

IntakeConsumersOption = Annotated[
    int,
    typer.Option(
        "--intake-consumers",
        "--clerks",
        min=0,
        max=64,
        help="Intake consumer processes: they fetch submitted sources and count their pages. 0: other machines run them.",
    ),
]


def dispatch(*, intake_consumers: IntakeConsumersOption = 1) -> None:
    """Run the controller: register submissions, dispatch pages, publish lost messages again, deliver results.

    [b]ocrfleet serve[/] does the same beside its HTTP API. Several may run: one of them leads, and another takes over when it dies.
    Stops on SIGTERM or Ctrl-C.

    Exit code: 0 stopped; 2 usage; 3 misconfigured.
    """
    settings = read_settings()
    logs.configure(settings.log_level)
    stopped = stopped_by_signals()
    exposition = Exposition(settings)
    with (
        served(exposition, settings),
        control_plane(
            settings, open_store(settings), consumers=intake_consumers, exposition=exposition, on_failure=stopped.set
        ),
    ):
        stopped.wait()
