"""What follows from a document's end: it is delivered to all who want it, they are told, and the indexes know it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError, DamagedRecordError, TransientError
from ocrfleet.jobs import DocumentStatus, Manifest, Status, Submission
from ocrfleet.storage import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocrfleet.storage import ObjectStore
    from producer.outbox import Outbox
    from producer.publish import Publisher

log = structlog.get_logger(__name__)

#: Seconds before what failed is tried again.
_PAUSE = 10.0


class Finisher:
    """Finishes documents beside its caller, `threads` at a time. Everything it does may be repeated."""

    def __init__(
        self,
        store: ObjectStore,
        publisher: Publisher,
        outbox: Outbox,
        *,
        threads: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._outbox = outbox
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="finish")
        self._begun: dict[tuple[str, int], Future[None]] = {}
        self._clock = clock
        self._not_before: dict[tuple[str, int], float] = {}

    def close(self) -> None:
        """Wait for what was begun; the rest is done after the next start."""
        self._pool.shutdown(cancel_futures=True)

    def finish(self, document: str, generation: int) -> bool:
        """Begin to finish a document unless that was done; say whether it is. Ask again if not.

        What fails is tried again after a pause, and keeps nothing else from being finished.
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
            begun.result()
        except NotFoundError as error:
            log.info("ended document not finished: it was deleted", document=document, error=str(error))
        except DamagedRecordError as error:
            log.error("ended document not finished", document=document, error=str(error))  # noqa: TRY400
        except TransientError as error:
            log.warning("waiting", document=document, error=str(error))
            self._not_before[task] = self._clock() + _PAUSE
            return False
        except Exception:
            log.exception("ended document not finished", document=document)
            self._not_before[task] = self._clock() + _PAUSE
            return False
        self._not_before.pop(task, None)
        return True

    def _finish(self, document: str, generation: int) -> None:
        status = Status.from_bytes(self._store.get(keys.status(document, generation)))
        manifest = Manifest.from_bytes(self._store.get(keys.manifest(document)))
        for submission in self._submissions(document):
            self._deliver(status, submission)
            self._tell(status, submission)
        day = manifest.created[:8]
        for other in DocumentStatus:
            if other is not status.status:
                self._store.delete(keys.ended(other, day, document))
        self._store.put(keys.ended(status.status, day, document), b"")

    def _submissions(self, document: str) -> Iterator[Submission]:
        for key in self._store.list(keys.wanted_by(document)):
            try:
                yield Submission.from_bytes(self._store.get(key))
            except DamagedRecordError as error:
                log.error("submission left alone", document=document, error=str(error))  # noqa: TRY400

    def _deliver(self, status: Status, submission: Submission) -> None:
        if submission.terms.results is None:
            return
        try:
            if not self._publisher.stands(status, submission):
                self._publisher.deliver(status, submission)
        except ConfigurationError as error:
            # Waiting for somebody to mend it would keep the others waiting; its outputs stay in the store.
            log.error(  # noqa: TRY400
                "not delivered: mend it, then submit the source again",
                document=status.document,
                name=submission.name,
                results=submission.terms.results,
                error=str(error),
            )

    def _tell(self, status: Status, submission: Submission) -> None:
        if submission.terms.callback is None:
            return
        told = keys.told(status.document, status.generation, submission.digest)
        if not self._store.exists(told):
            self._outbox.add(status, submission)
            # Afterwards: a crash between the two tells twice rather than never.
            self._store.put(told, b"")
