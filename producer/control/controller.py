"""Control: what exactly one process of a fleet does at a time, whichever of them that is.

Arrivals to intake, documents to the queue, what is lost once more to the queue, what has ended to those who want it. All
that it knows is in the store and in Redis: whoever takes over goes on.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.broker.celery_app import make_app
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import OcrfleetError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.metrics.exposition import ObservedGauges
from producer.control.dispatcher import Dispatcher
from producer.control.gauges import GaugeUpdater
from producer.control.sweep import Sweep
from producer.delivery.finisher import Finisher
from producer.delivery.to_s3 import S3Delivery
from producer.delivery.webhook import Sender
from producer.delivery.webhook_outbox import Courier, Outbox
from producer.documents.service import DocumentService
from producer.intake.scheduler import IntakeScheduler
from producer.state.backlog import Backlog
from producer.state.leader import Leadership

if TYPE_CHECKING:
    from celery import Celery

    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Seconds between two rounds, and between two looks at what was deleted.
_ROUND = 0.5
#: … and at most, when there was nothing to do for some rounds: each costs a dozen requests to the store.
_IDLE_ROUND = 3.0
_TIDY = 60.0
#: Seconds before results are delivered once more that somebody's bucket did not take.
_REDELIVER = 600.0


class Controller(threading.Thread):
    """Strives to be the one, and does its duties while it is. `stop` ends it."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        super().__init__(name="control", daemon=True)
        self._settings = settings
        self._store = store
        self._ledger = Ledger(settings.redis_url)
        self._stop_asked = threading.Event()
        #: the leader's gauges
        self.observed = ObservedGauges()
        self.observed.replace({metrics.LEADER: {(): 0}})

    def stop(self) -> None:
        """End after the round that has begun; another process may take over at once."""
        self._stop_asked.set()
        self.join()

    def run(self) -> None:
        app = make_app(self._settings)
        with Leadership(self._ledger.redis, keys.REDIS_DISPATCHER) as leadership:
            while not self._stop_asked.wait(_ROUND):
                if leadership.held:
                    self._lead(leadership, app)
        app.close()

    def _lead(self, leadership: Leadership, app: Celery) -> None:
        """Do the duties until somebody else is to."""
        with ExitStack() as stack:
            outbox = Outbox(self._store)
            finisher = Finisher(self._store, S3Delivery(self._store, self._settings.s3), outbox)
            stack.callback(finisher.close)
            observer = GaugeUpdater(self._settings, self._store, self._ledger, self.observed)
            stack.enter_context(observer.running())
            duties = _Duties(self._settings, self._store, self._ledger, app, finisher=finisher, observer=observer)
            sender = Sender(self._settings.webhook_secret, private=self._settings.webhook_private)
            courier = stack.enter_context(Courier(outbox, sender).running())
            pause = _ROUND
            while leadership.held and not self._stop_asked.wait(pause):
                try:
                    busy = duties.round()
                    courier.run_due()
                    pause = _ROUND if busy else min(pause * 1.5, _IDLE_ROUND)
                except OcrfleetError as error:
                    log.warning("waiting", error=str(error))
                except Exception:  # a round that can't be done must not end the rounds
                    log.exception("round failed")


class _Duties:
    """What is done again and again. Raises TransientError; the next round goes on."""

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        ledger: Ledger,
        app: Celery,
        *,
        finisher: Finisher,
        observer: GaugeUpdater,
    ) -> None:
        self._settings = settings
        self._receiver = IntakeScheduler(store, ledger, app)
        self._dispatcher = Dispatcher(
            store, ledger, app, backlog=Backlog(ledger, settings).limit, finish=finisher.finish
        )
        self._sweep = Sweep(self._dispatcher, store, ledger, app)
        self._registry = DocumentService(store, ledger, settings)
        self._finisher = finisher
        self._observer = observer
        self._adopted = False
        self._swept = self._tidied = self._redelivered = time.monotonic()

    def round(self) -> bool:
        """Do what is due; say whether there was work."""
        if not self._adopted:
            self._dispatcher.adopt()
            self._adopted = True
        arrived = self._receiver.tick()
        ended = self._dispatcher.tick()
        self._observer.set_active(list(self._dispatcher.active.values()))
        now = time.monotonic()
        if now - self._swept > self._settings.sweep_seconds:
            # Also what another leader began at its very end, as this one took over.
            self._dispatcher.adopt()
            self._sweep.run()
            self._swept = now
        if now - self._tidied > _TIDY:
            self._registry.remove_deleted()
            self._tidied = now
        if now - self._redelivered > _REDELIVER:
            self._finisher.try_undelivered()
            self._redelivered = now
        return bool(arrived or ended or self._dispatcher.busy)
