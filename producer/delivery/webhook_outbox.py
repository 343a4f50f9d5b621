"""The outbox: whom we still have to tell that a document has ended. All of it is in the store, so a restart loses nothing.

An object is named by when it is due. It is removed when the receiver has answered, so somebody is told at least once, and
knows by the delivery's id when it is twice.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import structlog
from pydantic import Field

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, TransientError
from ocrfleet.records.base import Moment, Record, digest_of
from ocrfleet.s3 import client as s3
from producer.delivery.webhook import Answer, Sender

if TYPE_CHECKING:
    from ocrfleet.records.documents import Status
    from ocrfleet.records.submissions import Submission
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Seconds before the next try after each failed one, then again and again the last of them; a fifth more or less.
_PAUSES = (5, 30, 120, 600, 3600, 3 * 3600)
_GIVE_UP = timedelta(days=1)
#: Deliveries at the same time, and to one host: one that hangs must not keep the others waiting.
_AT_ONCE, _TO_ONE_HOST = 8, 2
#: Due deliveries that are looked at in one round.
_WINDOW = 1000
_MOMENT = "%Y%m%dT%H%M%S.%fZ"


class Delivery(Record):
    """What somebody is to be told, and how often that was tried."""

    schema_version: Literal[1] = 1
    #: the same at every try
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    url: str
    body: str
    first: Moment
    attempts: int = 0


class Outbox:
    """Notes deliveries in a store."""

    def __init__(self, store: ObjectStore, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._clock = clock

    def add(self, status: Status, submission: Submission) -> None:
        """Have those who made a submission told how its document ended. Raises TransientError; may be repeated."""
        if submission.terms.callback is None:
            return
        delivery = Delivery(
            id=digest_of(status.document, str(status.generation), submission.digest)[:32],
            url=submission.terms.callback,
            body=_body(status, submission),
            first=self._clock().strftime(_MOMENT),
        )
        # Due since it was asked for: the same key each time, so that one that waits already is not noted twice.
        self._store.create(keys.outbox(submission.submitted, delivery.id), delivery.to_bytes())

    def due(self) -> Iterator[tuple[str, Delivery]]:
        """Yield the deliveries whose time has come, the longest due first."""
        until = keys.outbox(self._clock().strftime(_MOMENT), "g")
        for key in self._store.list(keys.OUTBOX):
            if key > until:
                return
            try:
                yield key, Delivery.from_bytes(self._store.get(key))
            except NotFoundError:
                continue
            except DamagedRecordError as error:
                log.error("delivery left alone", key=key, error=str(error))  # noqa: TRY400

    def settle(self, key: str, delivery: Delivery, answer: Answer, reason: str) -> None:
        """Note what became of a try: it is over, or due again later."""
        now = self._clock()
        tried = delivery.model_copy(update={"attempts": delivery.attempts + 1})
        begun = datetime.strptime(delivery.first, _MOMENT).replace(tzinfo=UTC)
        facts = {"delivery": delivery.id, "url": delivery.url, "attempts": tried.attempts, "reason": reason}
        if answer is Answer.DELIVERED:
            log.info("webhook delivered", **facts)
        elif answer is Answer.GONE or now - begun >= _GIVE_UP:
            log.error("webhook given up", **facts)
            self._store.put(keys.given_up(delivery.id), tried.to_bytes())
        else:
            pause = _PAUSES[min(delivery.attempts, len(_PAUSES) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311
            log.warning("webhook failed", again_in_seconds=round(pause), **facts)
            due = now + timedelta(seconds=pause)
            # The new one first: a crash between the two tells twice rather than never.
            self._store.put(keys.outbox(due.strftime(_MOMENT), delivery.id), tried.to_bytes())
        self._store.delete(key)


class Courier:
    """Carries out what is due, beside its caller."""

    def __init__(self, outbox: Outbox, sender: Sender) -> None:
        self._outbox = outbox
        self._sender = sender
        self._under_way: dict[str, tuple[str, Future[None]]] = {}

    @contextmanager
    def running(self) -> Iterator[Courier]:
        """Have threads until the block ends; deliveries under way are waited for."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="courier") as self._pool:
            yield self

    def run_due(self) -> None:
        """Begin what is due and not under way, as much as there is room for. Raises TransientError."""
        for key, (_, future) in list(self._under_way.items()):
            if future.done():
                del self._under_way[key]
        if len(self._under_way) >= _AT_ONCE:
            return
        for key, delivery in islice(self._outbox.due(), _WINDOW):
            host = urlsplit(delivery.url).netloc
            hosts = [other for other, _ in self._under_way.values()]
            if key in self._under_way or hosts.count(host) >= _TO_ONE_HOST:
                continue
            self._under_way[key] = host, self._pool.submit(self._carry, key, delivery)
            if len(self._under_way) >= _AT_ONCE:
                return

    def _carry(self, key: str, delivery: Delivery) -> None:
        answer, reason = self._sender.send(delivery.url, delivery.id, delivery.body.encode())
        try:
            self._outbox.settle(key, delivery, answer, reason)
        except TransientError as error:  # it is due still, and is told once more
            log.warning("waiting", delivery=delivery.id, error=str(error))


def _body(status: Status, submission: Submission) -> str:
    told = {
        "type": "document.ended",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "document": status.document,
            "generation": status.generation,
            "status": status.status,
            "total": status.total,
            "done": status.done,
            "failed": len(status.failures),
            "problem": status.problem.model_dump(mode="json") if status.problem else None,
            "name": submission.name,
            "source": s3.as_typed(submission.uri),
            "collection": submission.terms.collection,
            "results": submission.terms.results,
        },
    }
    return json.dumps(told, ensure_ascii=False)
