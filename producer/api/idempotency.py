"""Idempotency keys: a request that is repeated with the same Idempotency-Key gets the first response.

As the IETF's draft specifies (draft-ietf-httpapi-idempotency-key-header-07), the same key with another request is refused
with 422. Two requests at once need no lock: both have the same effect, and both get the response that was stored first.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import structlog
from starlette.concurrency import run_in_threadpool

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, OcrfleetError
from ocrfleet.records.base import Digest, Record, digest_of
from ocrfleet.storage.store import ObjectStore
from producer.api.problems import ProblemError

log = structlog.get_logger(__name__)

#: Days that objects are kept, by the prefix that has a folder for each day. 24 hours end on the day after they begin.
_DAYS = {keys.IDEMPOTENCY: 1, keys.ASKED: 7}
_EVERY = 3600.0

_DAY = timedelta(days=1)


class StoredResponse(Record):
    """The response to a request."""

    #: digest of the request
    fingerprint: Digest
    answered: datetime
    status: int
    location: str
    #: JSON
    body: str


class StoredResponses:
    """Responses of the last 24 hours, by token and idempotency key."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, user: str, key: str, fingerprint: str) -> StoredResponse | None:
        """Return the response to the same request; None without one. Raises ProblemError when another request had the key."""
        now = datetime.now(UTC)
        for day in (now, now - _DAY):
            with suppress(NotFoundError, DamagedRecordError):
                response = StoredResponse.from_bytes(self._store.get(_key(user, key, day)))
                if response.answered > now - _DAY:
                    return _same(response, fingerprint)
        return None

    def store(self, user: str, key: str, response: StoredResponse) -> StoredResponse:
        """Store a response; return it, or the one that was stored meanwhile. Raises ProblemError as `find` does."""
        name = _key(user, key, response.answered)
        if self._store.create(name, response.to_bytes()):
            return response
        try:
            return _same(StoredResponse.from_bytes(self._store.get(name)), response.fingerprint)
        except (NotFoundError, DamagedRecordError):
            return response


def _key(user: str, key: str, day: datetime) -> str:
    return keys.idempotency(day.strftime("%Y%m%d"), digest_of(user, key))


def _same(response: StoredResponse, fingerprint: str) -> StoredResponse:
    if response.fingerprint != fingerprint:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "This Idempotency-Key was used for another request: use a new key for each request.",
        )
    return response


async def remove_expired_periodically(store: ObjectStore) -> None:
    """Run `remove_expired` every hour, until cancelled."""
    while True:
        try:
            await run_in_threadpool(remove_expired, store, datetime.now(UTC))
        except OcrfleetError as error:
            log.warning("idempotency.removal_failed", error=str(error))
        await asyncio.sleep(_EVERY)


def remove_expired(store: ObjectStore, now: datetime) -> int:
    """Remove expired responses and intake outcomes; return the number of objects. Several processes may do it at once."""
    removed = 0
    for prefix, days in _DAYS.items():
        oldest = (now - timedelta(days=days)).strftime("%Y%m%d")
        for day in store.folders(prefix):
            if day < oldest:
                for key in list(store.list(f"{prefix}{day}/")):
                    store.delete(key)
                    removed += 1
    return removed
