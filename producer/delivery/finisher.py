"""Finish ended documents: deliver the results, add the webhook events, update the indexes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import structlog

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError, DamagedRecordError, NotFoundError, OcrfleetError, TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.base import DocumentId, Generation, Record
from ocrfleet.records.documents import DocumentStatus, Manifest, Status
from ocrfleet.records.submissions import Submission
from ocrfleet.storage.store import MARK
from producer.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocrfleet.storage.store import ObjectStore
    from producer.delivery.to_s3 import S3Delivery
    from producer.delivery.webhook_outbox import WebhookOutbox

log = structlog.get_logger(__name__)

#: Seconds before a failed attempt is repeated.
_PAUSE = 10.0


class Undelivered(Record):
    """An ended document whose results can't be delivered until a person corrects the bucket, its permissions or what is in the way."""

    schema_version: Literal[1] = 1
    document: DocumentId
    generation: Generation
    #: the error, and what to correct
    detail: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A document that ended and was delivered, and its latest submission."""

    status: Status
    latest: Submission | None


def _count(finished: Finished) -> None:
    metrics.DOCUMENTS_ENDED.labels(finished.status.status.value).inc()
    # The time of a retry request is not stored.
    if finished.latest is not None and finished.status.generation == 1:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(finished.latest.submitted)).total_seconds()
        metrics.TURNAROUND.labels(finished.latest.terms.queue.value).observe(max(0.0, seconds))


class Finisher:
    """Finishes documents in threads of its own. Each step may be repeated."""

    def __init__(
        self,
        store: ObjectStore,
        results: S3Delivery,
        outbox: WebhookOutbox,
        *,
        threads: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._results = results
        self._outbox = outbox
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="finish")
        self._begun: dict[tuple[str, int], Future[Finished]] = {}
        self._clock = clock
        self._not_before: dict[tuple[str, int], float] = {}

    def close(self) -> None:
        """Wait for the documents in work; the others are finished after the next start."""
        self._pool.shutdown(cancel_futures=True)

    def finish(self, document: str, generation: int) -> bool:
        """Start to finish a document unless that was done; return whether it is finished. If not, call again later.

        A failed attempt is repeated after a pause, and delays no other document.
        """
        task = (document, generation)
        begun = self._begun.get(task)
        if begun is None:
            if self._clock() >= self._not_before.get(task, 0.0):
                self._begun[task] = self._pool.submit(self._finish, document, generation)
            return False
        if not begun.done():
            return False
        del self._begun[task]
        try:
            _count(begun.result())
        except NotFoundError as error:
            log.info("finisher.document_deleted", document=document, error=str(error))
        except DamagedRecordError as error:
            metrics.DAMAGED_RECORDS.inc()
            log.error("finisher.record_damaged", document=document, error=str(error))  # noqa: TRY400
        except TransientError as error:
            log.warning("finisher.store_away", document=document, error=str(error))
            self._not_before[task] = self._clock() + _PAUSE
            return False
        except Exception:
            log.exception("finisher.raised", document=document)
            self._not_before[task] = self._clock() + _PAUSE
            return False
        self._not_before.pop(task, None)
        return True

    def try_undelivered(self) -> None:
        """Start to deliver again the documents that could not be delivered."""
        self._pool.submit(self._try_undelivered)

    def _try_undelivered(self) -> None:
        try:
            for key in self._store.list(keys.UNDELIVERED):
                with suppress(NotFoundError, DamagedRecordError):
                    left = Undelivered.from_bytes(self._store.get(key))
                    self._finish(left.document, left.generation)
        except TransientError as error:
            log.warning("finisher.redelivery_interrupted", error=str(error))
        except Exception:
            log.exception("finisher.redelivery_raised")

    def _finish(self, document: str, generation: int) -> Finished:
        status = Status.from_bytes(self._store.get(keys.status(document, generation)))
        manifest = Manifest.from_bytes(self._store.get(keys.manifest(document)))
        to_correct: OcrfleetError | None = None
        latest: Submission | None = None
        for submission in self._submissions(document):
            if latest is None or latest.submitted < submission.submitted:
                latest = submission
            if submission.cancelled is not None:
                continue  # its tenant cancelled the document, which went on for others
            try:
                self._deliver(status, submission)
            except (ConfigurationError, DeliveryError) as error:  # the other submissions are delivered all the same
                to_correct = error
            else:
                self._add_event(status, submission)
        self._record_undelivered(status, to_correct)
        day = manifest.created[:8]
        for other in DocumentStatus:
            if other is not status.status:
                self._store.delete(keys.ended(other, day, document))
        self._store.put(keys.ended(status.status, day, document), MARK)
        return Finished(status, latest)

    def _submissions(self, document: str) -> Iterator[Submission]:
        for key in self._store.list(keys.wanted_by(document)):
            try:
                yield Submission.from_bytes(self._store.get(key))
            except DamagedRecordError as error:
                metrics.DAMAGED_RECORDS.inc()
                log.error("finisher.submission_damaged", document=document, error=str(error))  # noqa: TRY400

    def _deliver(self, status: Status, submission: Submission) -> None:
        if submission.terms.results is not None:
            self._results.deliver(status, submission)

    def _record_undelivered(self, status: Status, to_correct: OcrfleetError | None) -> None:
        """Record the error that prevents the delivery, or remove that record."""
        key = keys.undelivered(status.document)
        if to_correct is not None:
            log.error("finisher.not_delivered", document=status.document, error=str(to_correct))
            left = Undelivered(document=status.document, generation=status.generation, detail=str(to_correct))
            self._store.put(key, left.to_bytes())
        elif self._store.exists(key):
            self._store.delete(key)

    def _add_event(self, status: Status, submission: Submission) -> None:
        if submission.terms.callback is None:
            return
        told = keys.told(status.document, status.generation, submission.digest)
        if not self._store.exists(told):
            self._outbox.add(status, submission)
            # Afterwards: a crash between the two sends the event twice, not never.
            self._store.put(told, MARK)
