"""`ocrfleet sweep`: publish again what got lost, once or now and then."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from ocrfleet import logs
from ocrfleet.broker.celery_app import make_app
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import TransientError
from ocrfleet.metrics.exposition import Exposition, served
from ocrfleet.storage.open import open_store
from producer.cli.options import read_settings
from producer.control.dispatcher import Dispatcher
from producer.control.sweep import Sweep

if TYPE_CHECKING:
    from ocrfleet.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds between two looks: what is missed at both is lost.
_BETWEEN_LOOKS = 2.0


def sweep(
    *,
    every: Annotated[
        float | None, typer.Option(min=5, help="Go on, with so many seconds in between; without it, once.")
    ] = None,
) -> None:
    """Look for pages and assemblies that ought to be on the queue and are not, and publish them again.

    [b]ocrfleet serve[/] and [b]dispatch[/] do it by themselves every minute. Several may run at once. Stops on SIGTERM or Ctrl-C.

    Exit code: 0; 3 when Redis or the store can't be used.
    """
    settings = read_settings()
    logs.configure(settings.log_level)
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: told.set())
    if every is None:
        _sweep(settings, told, None)
        return
    with served(Exposition(settings), settings):
        _sweep(settings, told, every)


def _sweep(settings: Settings, told: threading.Event, every: float | None) -> None:
    store, ledger, app = open_store(settings), Ledger(settings.redis_url), make_app(settings)
    while not told.is_set():
        try:
            # It publishes nothing new and finishes nothing: whoever leads does that.
            dispatcher = Dispatcher(store, ledger, app, backlog=lambda: 0)
            dispatcher.adopt()
            one = Sweep(dispatcher, store, ledger, app)
            one.run()
            if told.wait(_BETWEEN_LOOKS):
                break
            published = one.run()
        except TransientError as error:
            if every is None:
                raise
            log.warning("sweep.store_or_redis_away", error=str(error))
        else:
            typer.echo(f"{len(dispatcher.active)} active documents; published again: {published}")
        if every is None or told.wait(every):
            break
    app.close()
