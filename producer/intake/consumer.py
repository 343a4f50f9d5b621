"""The intake consumer: registers the sources of intake batches as documents. Any number of these processes may run.

Exit code: 0 after a drain (SIGTERM), 78 misconfigured.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from celery import signals
from celery.exceptions import Reject

from ocrfleet import keys, logs
from ocrfleet.broker.celery_app import TASK_INTAKE, make_app, publish_intake
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
from ocrfleet.records.documents import Source
from ocrfleet.records.messages import IntakeJob
from ocrfleet.records.submissions import IntakeBatch, IntakeOutcome, SourceReference
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import OwnOutputError, Sources
from ocrfleet.storage.fleet_identity import check_fleet
from ocrfleet.storage.open import open_store
from producer.intake.batches import client_of, outcome_for
from producer.intake.inspect import Intake
from producer.intake.places import Places
from producer.intake.quotas import QuotaError, Quotas
from producer.intake.register import Registration
from producer.state.profiles import Profiles

if TYPE_CHECKING:
    from celery import Celery

    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

COMMAND = [sys.executable, "-P", "-m", "producer.intake.consumer"]

#: Batches that one process works on at the same time: each mostly waits for the network.
_AT_ONCE = 4
#: Seconds for which a thread waits for another one of the same client, before it takes the next batch.
_PATIENCE = 1.0
#: Consecutive sources that can't be fetched, after which the rest of a batch is postponed: each may take minutes, and other
#: batches wait.
_FAILURES = 5


class IntakeConsumer:
    """Registers the sources of intake batches. Threads may share it."""

    def __init__(self, store: ObjectStore, ledger: Ledger, intake: Intake, quotas: Quotas | None = None) -> None:
        self._quotas = quotas
        self._store = store
        self._ledger = ledger
        self._intake = intake
        self._profiles = Profiles(store)
        self._draining = threading.Event()

    def drain(self) -> None:
        """Postpone the batches in hand, each after its present source."""
        self._draining.set()

    def process(self, key: str) -> None:
        """Register the sources of a batch, then delete it. A source that can't be fetched now does not hold up the others.

        Raises TransientError when sources are left; the batch then has these, beginning with those that were not tried. Raises
        ConfigurationError when the batch is in the store of another fleet.
        """
        try:
            data = self._store.get(key)
        except NotFoundError:
            check_fleet(self._store, self._ledger.redis)
            return  # another consumer was faster
        try:
            batch = IntakeBatch.from_bytes(data)
            profile = self._profiles.get(batch.terms.profile_digest)
        except (DamagedRecordError, NotFoundError) as error:
            metrics.DAMAGED_RECORDS.inc(isinstance(error, DamagedRecordError))
            # Moved to `refused/`: otherwise the scheduler would publish it without end.
            self._store.put(keys.refused(key), data)
            self._store.delete(key)
            log.error("intake_consumer.batch_refused", kept_as=keys.refused(key), error=str(error))  # noqa: TRY400
            return
        registration = Registration(
            self._store,
            self._intake,
            profile=profile,
            terms=batch.terms,
            ledger=self._ledger,
            admit=functools.partial(self._admit, batch, keys.arrival_name(key)),
            client=batch.client,
            largest=None if self._quotas is None or batch.client is None else self._quotas.largest,
        )
        failed: list[SourceReference] = []
        in_a_row = 0
        last_error: OcrfleetError = TransientError("the intake consumer drains")
        references = iter(batch.wishes)
        while (
            not self._draining.is_set() and in_a_row < _FAILURES and (reference := next(references, None)) is not None
        ):
            try:
                became = self._register(registration, reference, batch)
                if batch.followed:
                    self._store.put(keys.asked(keys.arrival_name(key)), became.to_bytes())
            except OcrfleetError as error:
                failed.append(reference)
                last_error = error
                in_a_row += 1
            else:
                in_a_row = 0
        left = (*references, *failed)
        if left:
            # A consumer leaves out only what it registered itself, so two with the same batch lose no source.
            if left != batch.wishes:
                self._store.put(key, batch.model_copy(update={"wishes": left}).to_bytes())
            raise TransientError(f"{len(left)} of {len(batch.wishes)} sources are left: {last_error}") from last_error
        self._store.delete(key)
        log.info("intake_consumer.batch_registered", collection=batch.terms.collection, sources=len(batch.wishes))

    def _admit(self, batch: IntakeBatch, name: str, source: Source, pages: int) -> None:
        """Check a source that a client submitted over HTTP, and take its pages from the quotas, once for a batch.

        Its bytes were taken when it was submitted, but for those that it has grown by. Raises PermanentError, QuotaError.
        """
        if self._quotas is None or batch.client is None:
            return
        self._quotas.check_pages(pages)
        (submitted,) = batch.wishes
        grown = max(0, source.size - submitted.size)
        self._quotas.take(batch.client, batch.terms.collection, pages=pages, size=grown, once=name)

    @staticmethod
    def _register(registration: Registration, reference: SourceReference, batch: IntakeBatch) -> IntakeOutcome:
        with structlog.contextvars.bound_contextvars(source=reference.uri):
            begun = time.monotonic()
            try:
                registered = registration.register_reference(reference, submitted=batch.created)
            except OwnOutputError as error:
                log.warning("intake_consumer.own_output_skipped", error=str(error))
                return outcome_for(batch.terms, refused=str(error))
            except QuotaError as error:
                log.warning("intake_consumer.quota_spent", collection=batch.terms.collection, error=str(error))
                return outcome_for(batch.terms, refused=str(error))
            except OcrfleetError:
                raise
            except Exception as error:
                # A bug must not postpone the batch without end: the source becomes a failed document.
                log.exception("intake_consumer.source_raised")
                fault = PermanentError(Reason.INTERNAL_ERROR, f"intake raised {type(error).__name__}: see its log")
                registered = registration.refuse(reference, fault, submitted=batch.created)
            metrics.INTAKE_SECONDS.observe(time.monotonic() - begun)
            log.debug("intake_consumer.document_registered", document=registered.document, pages=registered.total)
            return outcome_for(batch.terms, document=registered.document)


def serve(settings: Settings) -> int:
    """Consume the intake queue until SIGTERM; return the exit code. Raises ConfigurationError."""
    store = open_store(settings)
    ledger = Ledger(settings.redis_url.get_secret_value())
    with suppress(TransientError):  # Redis may start later
        check_fleet(store, ledger.redis)
    intake = Intake(settings, store, Sources(settings, store))
    intake_consumer = IntakeConsumer(store, ledger, intake, Quotas(settings.api, ledger))
    app = make_app(settings, consume=[keys.QUEUE_INTAKE])
    places = Places(_AT_ONCE)
    leases = Leases(ledger, state=None, lease_seconds=settings.lease_seconds, job_deadline=settings.job_deadline)

    failures: list[ConfigurationError] = []

    @app.task(name=TASK_INTAKE, bind=True)
    def take_in(self: Any, message: Any) -> None:
        try:
            key = IntakeJob.from_message(message).arrival
            with leases.held(self.request.properties["delivery_tag"]):
                _process_in_turn(intake_consumer, key, places, app)
        except ConfigurationError as error:
            # The batch is in another fleet's store: its consumers take it.
            failures.append(error)
            os.kill(os.getpid(), signal.SIGTERM)
            raise Reject(error, requeue=True) from error
        except PermanentError as error:
            # Nothing is lost: the scheduler publishes the batch again in this version's format.
            log.error("intake_consumer.message_refused", error=error.detail)  # noqa: TRY400
        # The scheduler publishes the batch again after a pause. A message on the queue would be retried at once, before others.
        except OcrfleetError as error:
            log.warning("intake_consumer.batch_postponed", error=str(error))
        except Exception:
            log.exception("intake_consumer.batch_raised")

    @signals.worker_shutting_down.connect(weak=False)
    def drain(**_: Any) -> None:
        intake_consumer.drain()

    @signals.setup_logging.connect(weak=False)
    def keep_logging(**_: Any) -> None:
        """Being connected is enough: Celery then leaves the log and its level alone."""

    leases.start()
    consumer = app.Worker(
        hostname="intake@%h",
        pool="threads",
        concurrency=_AT_ONCE,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    if settings.ready_file is not None:
        settings.ready_file.touch()
    log.info("intake_consumer.ready")
    consumer.start()
    leases.stop()
    intake.close()
    if failures:
        raise failures[0]
    return 0


def _process_in_turn(consumer: IntakeConsumer, key: str, places: Places, app: Celery) -> None:
    """Process a batch, or publish it again behind those of other clients, while its client holds all but one of the threads."""
    with places.taken(client_of(key), seconds=_PATIENCE) as has_place:
        if has_place:
            consumer.process(key)
        else:
            publish_intake(app, [key])


def main() -> None:
    """Run the intake consumer with the settings OCRFLEET_*."""
    settings = Settings()
    logs.configure(settings.log_level)
    try:
        code = serve(settings)
    except ConfigurationError as error:
        log.error("intake_consumer.misconfigured", error=str(error))  # noqa: TRY400 - one clear line
        code = EXIT_CONFIGURATION
    sys.exit(code)


if __name__ == "__main__":
    main()
