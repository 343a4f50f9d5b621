"""`ocrfleet sweep`: publishes lost messages again, once or periodically."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from ocrfleet import logs
from ocrfleet.broker.celery_app import make_app
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import TransientError
from ocrfleet.metrics.exposition import Exposition, served
from ocrfleet.storage.fleet_identity import check_fleet
from ocrfleet.storage.open import open_store
from producer.cli import terminal
from producer.cli.options import read_settings
from producer.cli.stopping import stopped_by_signals
from producer.control.dispatcher import Dispatcher
from producer.control.sweep import Sweep

if TYPE_CHECKING:
    from ocrfleet.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds between two inspections of the queue: a message that is missing in both is lost.
_BETWEEN_LOOKS = 2.0


def sweep(
    *,
    every: Annotated[
        float | None, typer.Option(min=5, help="Sweep again after so many seconds; without it, once.")
    ] = None,
) -> None:
    """Publish page jobs and assemblies again that are missing on the queue.

    [b]ocrfleet serve[/] and [b]dispatch[/] sweep every minute by themselves. Several may run at once. Stops on SIGTERM or Ctrl-C.

    Exit code: 0; 3 Redis or the store is unreachable or misconfigured.
    """
    settings = read_settings()
    logs.configure(settings.log_level)
    stopped = stopped_by_signals()
    if every is None:
        _sweep(settings, stopped, None)
        return
    with served(Exposition(settings), settings):
        _sweep(settings, stopped, every)


def _sweep(settings: Settings, stopped: threading.Event, every: float | None) -> None:
    store, ledger, app = open_store(settings), Ledger(settings.redis_url.get_secret_value()), make_app(settings)
    while not stopped.is_set():
        try:
            check_fleet(store, ledger.redis)
            # It dispatches nothing new and finishes no document: the leader does that.
            dispatcher = Dispatcher(store, ledger, app, backlog=lambda: 0)
            dispatcher.adopt()
            one = Sweep(dispatcher, store, ledger, app)
            one.run()
            if stopped.wait(_BETWEEN_LOOKS):
                break
            published = one.run()
        except TransientError as error:
            if every is None:
                raise
            log.warning("sweep.store_or_redis_away", error=str(error))
        else:
            terminal.echo(f"{len(dispatcher.active)} active documents; published again: {published}")
        if every is None or stopped.wait(every):
            break
    app.close()
