"""`ocrfleet intake`: intake consumers, on machines that need to reach Redis and the store only."""

from __future__ import annotations

from typing import Annotated

import typer

from ocrfleet import logs
from ocrfleet.metrics.exposition import Exposition, served
from producer.cli.options import read_settings
from producer.cli.stopping import stopped_by_signals
from producer.control.process import intake_consumers


def intake(
    *,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Intake consumer processes.")] = 1,
) -> None:
    """Run intake consumers: they fetch submitted sources, open them to count their pages, and register them.

    [b]ocrfleet serve[/] and [b]dispatch[/] run them, too, unless they are started with [b]--intake-consumers 0[/]. Documents are
    then opened where there is no way out but to Redis and S3. Stops on SIGTERM or Ctrl-C.

    Exit code: 0 stopped; 2 usage; 3 misconfigured.
    """
    settings = read_settings()
    logs.configure(settings.log_level)
    stopped = stopped_by_signals()
    exposition = Exposition(settings)
    with (
        served(exposition, settings),
        intake_consumers(settings, processes, exposition=exposition, on_failure=stopped.set),
    ):
        stopped.wait()
