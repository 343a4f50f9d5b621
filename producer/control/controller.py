"""The controller loop: the steps that exactly one process of a fleet runs at a time, the leader.

All of its state is in the store and in Redis, so that another process can take over at any moment.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.broker.celery_app import make_app
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import ConfigurationError, OcrfleetError, TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.metrics.exposition import ObservedGauges
from ocrfleet.storage.fleet_identity import claim_redis
from producer.control.dispatcher import Dispatcher
from producer.control.gauges import GaugeUpdater
from producer.control.sweep import Sweep
from producer.delivery.finisher import Finisher
from producer.delivery.to_s3 import S3Delivery
from producer.delivery.webhook import WebhookClient
from producer.delivery.webhook_outbox import WebhookOutbox, WebhookSender
from producer.documents.service import DocumentService
from producer.intake.scheduler import IntakeScheduler
from producer.processes.converter import Converter
from producer.state.backlog import Backlog
from producer.state.leader import Leadership

if TYPE_CHECKING:
    from celery import Celery

    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Seconds between two rounds; at most, after some rounds without work: each round costs a dozen requests to the store.
_ROUND = 0.5
_IDLE_ROUND = 3.0
#: Seconds between two runs of the steps that need not run in each round.
_REMOVE_DELETED = 60.0
_REDELIVER = 600.0
#: Processes for formats of documents that were submitted once more after they had ended. They are started when needed.
_CONVERTERS = 2


@dataclass(slots=True)
class ControllerStep:
    """A step of the loop. `run` returns something true when it found work; where it raises, the next round runs it again."""

    name: str
    run: Callable[[], object]
    #: seconds between two runs; 0: in each round
    every: float = 0.0
    last_run: float = field(default_factory=time.monotonic)

    @property
    def due(self) -> bool:
        return time.monotonic() - self.last_run >= self.every


class Controller(threading.Thread):
    """Runs the controller loop while this process is the leader, and otherwise waits to become it."""

    def __init__(self, settings: Settings, store: ObjectStore, on_failure: Callable[[], None] = lambda: None) -> None:
        """`on_failure` is called from this thread when Redis is of another fleet than the store."""
        super().__init__(name="controller", daemon=True)
        self._settings = settings
        self._store = store
        self._on_failure = on_failure
        #: why this process must not lead, once it was found
        self.failure: ConfigurationError | None = None
        self._ledger = Ledger(settings.redis_url.get_secret_value())
        self._stopped = threading.Event()
        #: the leader's gauges
        self.gauges = ObservedGauges()
        self.gauges.replace({metrics.LEADER: {(): 0}})

    def stop(self) -> None:
        """Stop after the present round; another process may take over at once."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        app = make_app(self._settings)
        with Leadership(self._ledger.redis, keys.REDIS_DISPATCHER) as leadership:
            while not self._stopped.wait(_ROUND):
                try:
                    # Before anything is started: a leader with another store would hold up the fleet of this Redis.
                    if not leadership.held or not self._is_fleet():
                        continue
                except ConfigurationError as error:
                    log.error("controller.fleet_refused", error=str(error))  # noqa: TRY400
                    self.failure = error
                    self._on_failure()
                    break
                with self._steps(app) as steps:
                    self._loop(leadership, steps)
        app.close()

    def _is_fleet(self) -> bool:
        """Return whether Redis is of the store's fleet, False while one of them is away. Raises ConfigurationError."""
        try:
            claim_redis(self._store, self._ledger.redis)
        except TransientError as error:
            log.warning("controller.fleet_not_checked", error=str(error))
            return False
        return True

    def _loop(self, leadership: Leadership, steps: Sequence[ControllerStep]) -> None:
        """Run the steps in rounds while this process leads."""
        pause = _ROUND
        while leadership.held and not self._stopped.wait(pause):
            found_work = _run_round(steps)
            if found_work is not None:
                pause = _ROUND if found_work else min(pause * 1.5, _IDLE_ROUND)

    @contextmanager
    def _steps(self, app: Celery) -> Iterator[Sequence[ControllerStep]]:
        """Start what the steps need, for as long as this process leads."""
        settings, store, ledger = self._settings, self._store, self._ledger
        with ExitStack() as stack:
            outbox = WebhookOutbox(store)
            converter = Converter.of_fleet(settings, store, processes=_CONVERTERS)
            stack.callback(converter.close)
            finisher = Finisher(store, S3Delivery(store, settings.s3, converter.outputs), outbox)
            stack.callback(finisher.close)
            gauges = stack.enter_context(GaugeUpdater(settings, store, ledger, self.gauges).running())
            client = WebhookClient(settings.webhook_secret, private=settings.webhook_private)
            sender = stack.enter_context(WebhookSender(outbox, client).running())
            intake = IntakeScheduler(store, ledger, app)
            dispatcher = Dispatcher(store, ledger, app, backlog=Backlog(ledger, settings).limit, finish=finisher.finish)
            sweep = Sweep(dispatcher, store, ledger, app)
            documents = DocumentService(store, ledger, settings)
            stack.callback(documents.close)

            adopted = False

            def adopt_once() -> None:
                nonlocal adopted
                if not adopted:
                    dispatcher.adopt()
                    adopted = True

            def dispatch() -> bool:
                ended = dispatcher.tick()
                gauges.set_active(list(dispatcher.active.values()))
                return bool(ended) or dispatcher.busy

            def publish_lost() -> int:
                # Once more: the leader before may have dispatched documents while this one took over.
                dispatcher.adopt()
                return sweep.run()

            yield (
                ControllerStep(
                    "hold the fleet's identity in Redis",
                    functools.partial(claim_redis, store, ledger.redis),
                    every=settings.sweep_seconds,
                ),
                ControllerStep("adopt active documents", adopt_once),
                ControllerStep("publish intake jobs", intake.tick),
                ControllerStep("dispatch documents, finish ended ones", dispatch),
                ControllerStep("publish lost jobs again", publish_lost, every=settings.sweep_seconds),
                ControllerStep("remove deleted documents", documents.remove_deleted, every=_REMOVE_DELETED),
                ControllerStep("deliver again what a bucket refused", finisher.try_undelivered, every=_REDELIVER),
                ControllerStep("send webhooks", sender.run_due),
            )


def _run_round(steps: Sequence[ControllerStep]) -> bool | None:
    """Run the steps that are due; return whether any found work. A step that fails ends the round: None is returned then."""
    found_work = False
    for step in steps:
        if not step.due:
            continue
        try:
            found_work |= bool(step.run())
        except OcrfleetError as error:  # the store or Redis is away
            log.warning("controller.step_failed", step=step.name, error=str(error))
            return None
        except Exception:  # the next round may succeed
            log.exception("controller.step_raised", step=step.name)
            return None
        step.last_run = time.monotonic()
    return found_work
