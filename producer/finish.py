"""What follows from a document's end: it is delivered to all who want it, they are told, and the indexes know it."""

from __future__ import annotations

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


class Finisher:
    """Finishes documents beside its caller, `threads` at a time. Everything it does may be repeated."""

    def __init__(self, store: ObjectStore, publisher: Publisher, outbox: Outbox, *, threads: int = 8) -> None:
        self._store = store
        self._publisher = publisher
        self._outbox = outbox
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="finish")
        self._begun: dict[tuple[str, int], Future[None]] = {}

    def close(self) -> None:
        """Wait for what was begun; the rest is done after the next start."""
        self._pool.shutdown(cancel_futures=True)

    def finish(self, document: str, generation: int) -> bool:
        """Begin to finish a document unless that was done; say whether it is. Ask again if not."""
        future = self._begun.get((document, generation))
        if future is None:
            self._begun[document, generation] = self._pool.submit(self._finish, document, generation)
            return False
        if not future.done():
            return False
        del self._begun[document, generation]
        try:
            future.result()
        except TransientError as error:
            log.warning("waiting", document=document, error=str(error))
            return False
        except NotFoundError:
            log.info("document was deleted", document=document)
        except DamagedRecordError as error:
            log.error("document not delivered", document=document, error=str(error))  # noqa: TRY400
        return True

    def _finish(self, document: str, generation: int) -> None:
        status = Status.from_bytes(self._store.get(keys.status(document, generation)))
        manifest = Manifest.from_bytes(self._store.get(keys.manifest(document)))
        for submission in self._submissions(document):
            self._hand_over(status, submission)
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

    def _hand_over(self, status: Status, submission: Submission) -> None:
        """Deliver to one who wants it, and tell them, unless that was done."""
        delivered: dict[str, str] | None = None
        try:
            if submission.terms.results is not None:
                if self._publisher.stands(status, submission):
                    return
                delivered = self._publisher.deliver(status, submission)
        except ConfigurationError as error:
            # Waiting for ever would block what comes after; its outputs stay in the store.
            log.error(  # noqa: TRY400
                "not delivered: mend it, then submit the document again",
                document=status.document,
                name=submission.name,
                results=submission.terms.results,
                error=str(error),
            )
        # After the outputs, so that who is told finds them, and before what says that all of it was done.
        if submission.terms.callback is not None:
            self._outbox.add(status, submission)
        if delivered is not None:
            self._publisher.point(status, submission, delivered)
