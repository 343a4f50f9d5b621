"""The clerk: a Celery consumer of the intake queue that makes documents of arrivals. As many may run as there is need for.

Ends with 0 after a drain (SIGTERM), 78 when it can't start as configured.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import structlog
from celery import signals

from ocrfleet import keys, logs
from ocrfleet.broker.celery_app import TASK_INTAKE, make_app
from ocrfleet.broker.leases import Leases
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import (
    EXIT_CONFIGURATION,
    ConfigurationError,
    DamagedRecordError,
    NotFoundError,
    OcrfleetError,
    PermanentError,
    Reason,
    TransientError,
)
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.messages import IntakeJob
from ocrfleet.records.submissions import IntakeBatch, IntakeOutcome, SourceReference
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import OwnOutputError, Sources
from ocrfleet.storage.open import open_store
from producer.intake.inspect import Intake
from producer.intake.register import Registration
from producer.state.profiles import Profiles

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

COMMAND = [sys.executable, "-P", "-m", "producer.intake.consumer"]

#: Arrivals that are taken in at the same time: each waits for the network most of its time.
_AT_ONCE = 4
#: Sources of an arrival that can't be had now, one after the other, after which the rest of it waits: each may have cost
#: minutes, and others wait, too.
_PATIENCE = 5


class IntakeConsumer:
    """Takes arrivals in. May be used by several threads."""

    def __init__(self, store: ObjectStore, ledger: Ledger, intake: Intake) -> None:
        self._store = store
        self._ledger = ledger
        self._intake = intake
        self._profiles = Profiles(store)
        self._leaving = threading.Event()

    def leave(self) -> None:
        """Give back what is in hand after the source that is being taken in."""
        self._leaving.set()

    def take_in(self, key: str) -> None:
        """Make documents of an arrival's wishes, then remove it. A wish that can't be done now keeps no other waiting.

        Raises TransientError when something is left of it, to be done later: first what was not tried.
        """
        try:
            data = self._store.get(key)
        except NotFoundError:
            return  # done by somebody else
        try:
            arrival = IntakeBatch.from_bytes(data)
            profile = self._profiles.get(arrival.terms.profile_digest)
        except (DamagedRecordError, NotFoundError) as error:
            # Aside, not away: it would come back for ever and keep the others waiting.
            self._store.put(keys.refused(key), data)
            self._store.delete(key)
            log.error("arrival refused", kept_as=keys.refused(key), error=str(error))  # noqa: TRY400
            return
        registrar = Registration(self._store, self._intake, profile=profile, terms=arrival.terms, ledger=self._ledger)
        failed: list[SourceReference] = []
        in_a_row = 0
        trouble: OcrfleetError = TransientError("the clerk is leaving")
        wishes = iter(arrival.wishes)
        while not self._leaving.is_set() and in_a_row < _PATIENCE and (wish := next(wishes, None)) is not None:
            try:
                became = self._register(registrar, wish, arrival)
                if arrival.followed:
                    self._store.put(keys.asked(keys.arrival_name(key)), became.to_bytes())
            except OcrfleetError as error:
                failed.append(wish)
                trouble = error
                in_a_row += 1
            else:
                in_a_row = 0
        left = (*wishes, *failed)
        if left:
            # Each clerk leaves out only what it did itself: two at the same arrival lose none.
            if left != arrival.wishes:
                self._store.put(key, arrival.model_copy(update={"wishes": left}).to_bytes())
            raise TransientError(f"{len(left)} of {len(arrival.wishes)} sources wait: {trouble}") from trouble
        self._store.delete(key)
        log.info("taken in", collection=arrival.terms.collection, sources=len(arrival.wishes))

    @staticmethod
    def _register(registrar: Registration, wish: SourceReference, arrival: IntakeBatch) -> IntakeOutcome:
        with structlog.contextvars.bound_contextvars(source=wish.uri):
            try:
                with metrics.INTAKE_SECONDS.time():
                    registered = registrar.take_in(wish, submitted=arrival.created)
            except OwnOutputError as error:
                log.warning("not taken in", error=str(error))
                return IntakeOutcome(refused=str(error))
            except OcrfleetError:
                raise
            except Exception as error:
                # A fault of ours must not keep the others waiting for ever; it is accounted for, as a document that failed.
                log.exception("intake raised")
                fault = PermanentError(Reason.INTERNAL_ERROR, f"intake raised {type(error).__name__}: see its log")
                registered = registrar.refuse(wish, fault, submitted=arrival.created)
            log.debug("registered", document=registered.document, pages=registered.total)
            return IntakeOutcome(document=registered.document)


def serve(settings: Settings) -> int:
    """Consume the intake queue until told to stop; return the exit code."""
    store = open_store(settings)
    ledger = Ledger(settings.redis_url)
    intake = Intake(settings, store, Sources(settings, store))
    clerk = IntakeConsumer(store, ledger, intake)
    app = make_app(settings, consume=[keys.QUEUE_INTAKE])
    leases = Leases(ledger, state=None, lease_seconds=settings.lease_seconds, job_deadline=settings.job_deadline)

    @app.task(name=TASK_INTAKE, bind=True)
    def take_in(self: Any, message: Any) -> None:
        try:
            with leases.held(self.request.properties["delivery_tag"]):
                clerk.take_in(IntakeJob.from_message(message).arrival)
        except PermanentError as error:
            # Nothing is lost: the arrival is published again in this version's words.
            log.error("message refused", error=error.detail)  # noqa: TRY400
        # What is left is in the store, and published again after a rest: on the queue it would circle, before all others.
        except OcrfleetError as error:
            log.warning("arrival left for later", error=str(error))
        except Exception:
            log.exception("arrival left for later")

    @signals.worker_shutting_down.connect(weak=False)
    def drain(**_: Any) -> None:
        clerk.leave()

    @signals.setup_logging.connect(weak=False)
    def keep_logging(**_: Any) -> None:
        """Being connected is enough: Celery then leaves the log and its level alone."""

    leases.start()
    consumer = app.Worker(
        hostname="clerk@%h",
        pool="threads",
        concurrency=_AT_ONCE,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    if settings.ready_file is not None:
        settings.ready_file.touch()
    log.info("clerk ready")
    consumer.start()
    leases.stop()
    intake.close()
    return 0


def main() -> None:
    """Run a clerk as OCRFLEET_* says."""
    settings = Settings()
    logs.configure(settings.log_level)
    try:
        code = serve(settings)
    except ConfigurationError as error:
        log.error("clerk can't start", error=str(error))  # noqa: TRY400 - one clear line
        code = EXIT_CONFIGURATION
    sys.exit(code)


if __name__ == "__main__":
    main()
