"""Webhook outbox: deliveries that are due, in the store, so that a restart loses none.

A delivery's key starts with the time when it is due. It is removed when the receiver has answered: a receiver gets each
event at least once, and recognises a second time by the delivery's id.
"""

from __future__ import annotations

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
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.base import Moment, Record, digest_of
from ocrfleet.records.tenants import DEFAULT, Tenant
from producer.delivery.webhook import DeliveryResult, WebhookClient
from producer.delivery.webhook_event import webhook_event

if TYPE_CHECKING:
    from ocrfleet.records.documents import Status
    from ocrfleet.records.submissions import Submission
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Seconds before the next attempt after each failed one, give or take a fifth; the last one repeats.
_PAUSES = (5, 30, 120, 600, 3600, 3 * 3600)
_GIVE_UP = timedelta(days=1)
#: Deliveries in flight, in all and to one host: a host that hangs must not delay the others.
_AT_ONCE, _TO_ONE_HOST = 8, 2
#: Due deliveries that are considered in one round.
_WINDOW = 1000
_MOMENT = "%Y%m%dT%H%M%S.%fZ"


class WebhookDelivery(Record):
    """An event for one receiver, and the number of attempts so far."""

    schema_version: Literal[1] = 1
    #: the same at each attempt
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    url: str
    body: str
    #: when it was added
    first: Moment
    attempts: int = 0
    #: whose secret signs it; None: the default tenant's
    tenant: Tenant | None = None


class WebhookOutbox:
    """Keeps deliveries in a store."""

    def __init__(self, store: ObjectStore, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._clock = clock

    def add(self, status: Status, submission: Submission) -> None:
        """Add the event that a submission's document has ended. Raises TransientError; may be repeated."""
        if submission.terms.callback is None:
            return
        delivery = WebhookDelivery(
            id=digest_of(status.document, str(status.generation), submission.digest)[:32],
            url=submission.terms.callback,
            body=webhook_event(status, submission),
            first=self._clock().strftime(_MOMENT),
            tenant=None if submission.tenant == DEFAULT else submission.tenant,
        )
        # Due since the submission: the same key each time, so that a repetition adds nothing.
        self._store.create(keys.outbox(submission.submitted, delivery.id), delivery.to_bytes())

    def due(self) -> Iterator[tuple[str, WebhookDelivery]]:
        """Yield the deliveries that are due with their keys, the longest due first. Raises TransientError."""
        until = keys.outbox(self._clock().strftime(_MOMENT), "g")
        for key in self._store.list(keys.OUTBOX):
            if key > until:
                return
            try:
                yield key, WebhookDelivery.from_bytes(self._store.get(key))
            except NotFoundError:
                continue
            except DamagedRecordError as error:
                metrics.DAMAGED_RECORDS.inc()
                log.error("webhook.record_damaged", key=key, error=str(error))  # noqa: TRY400

    def record(self, key: str, delivery: WebhookDelivery, result: DeliveryResult, reason: str) -> None:
        """Record the result of an attempt: the delivery is removed, or due again later. Raises TransientError."""
        now = self._clock()
        tried = delivery.model_copy(update={"attempts": delivery.attempts + 1})
        begun = datetime.strptime(delivery.first, _MOMENT).replace(tzinfo=UTC)
        facts = {"delivery": delivery.id, "url": delivery.url, "attempts": tried.attempts, "reason": reason}
        if result is DeliveryResult.DELIVERED:
            log.info("webhook.delivered", **facts)
        elif result is DeliveryResult.GONE or now - begun >= _GIVE_UP:
            log.error("webhook.given_up", **facts)
            self._store.put(keys.given_up(delivery.id), tried.to_bytes())
        else:
            pause = _PAUSES[min(delivery.attempts, len(_PAUSES) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311
            log.warning("webhook.attempt_failed", again_in_seconds=round(pause), **facts)
            due = now + timedelta(seconds=pause)
            # The new key first: a crash between the two sends the event twice, not never.
            self._store.put(keys.outbox(due.strftime(_MOMENT), delivery.id), tried.to_bytes())
        self._store.delete(key)


class WebhookSender:
    """Sends due deliveries in threads of its own."""

    def __init__(self, outbox: WebhookOutbox, client: WebhookClient) -> None:
        self._outbox = outbox
        self._client = client
        self._in_flight: dict[str, tuple[str, Future[None]]] = {}

    @contextmanager
    def running(self) -> Iterator[WebhookSender]:
        """Run the threads until the block ends; waits for deliveries in flight."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="webhooks") as self._pool:
            yield self

    def run_due(self) -> None:
        """Start deliveries that are due, up to the limits on those in flight. Raises TransientError."""
        for key, (_, future) in list(self._in_flight.items()):
            if future.done():
                del self._in_flight[key]
        if len(self._in_flight) >= _AT_ONCE:
            return
        for key, delivery in islice(self._outbox.due(), _WINDOW):
            host = urlsplit(delivery.url).netloc
            hosts = [other for other, _ in self._in_flight.values()]
            if key in self._in_flight or hosts.count(host) >= _TO_ONE_HOST:
                continue
            self._in_flight[key] = host, self._pool.submit(self._send, key, delivery)
            if len(self._in_flight) >= _AT_ONCE:
                return

    def _send(self, key: str, delivery: WebhookDelivery) -> None:
        result, reason = self._client.send(delivery.url, delivery.id, delivery.body.encode(), tenant=delivery.tenant)
        try:
            self._outbox.record(key, delivery, result, reason)
        except TransientError as error:  # still due: it is sent again
            log.warning("webhook.result_not_stored", delivery=delivery.id, error=str(error))
