"""Requests with an Idempotency-Key: whoever sends one again, for want of an answer, gets the first one's answer.

As the IETF's draft has it (draft-ietf-httpapi-idempotency-key-header-07): the same key with another request is refused with
422. Two at once need no lock: both do the same harmless thing, and the answer that was stored first is that of both.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from starlette.concurrency import run_in_threadpool

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, OcrfleetError
from ocrfleet.records.base import Digest, Record, digest_of
from ocrfleet.storage.store import ObjectStore
from producer.api.problems import ProblemError

if TYPE_CHECKING:
    pass

log = structlog.get_logger(__name__)

#: By the prefix that has a folder for each day. An answer is kept for 24 hours, which begin on one day and end on the next.
_DAYS = {keys.IDEMPOTENCY: 1, keys.ASKED: 7}
_EVERY = 3600.0

_DAY = timedelta(days=1)


class Answer(Record):
    """What a request was answered."""

    #: of the request
    fingerprint: Digest
    answered: datetime
    status: int
    location: str
    #: JSON
    body: str


class Answers:
    """Answers of a day, by who asked and the key that they chose."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def earlier(self, user: str, key: str, fingerprint: str) -> Answer | None:
        """Return what the same request was answered before. Raises ProblemError if the key was another request's."""
        now = datetime.now(UTC)
        for day in (now, now - _DAY):
            with suppress(NotFoundError, DamagedRecordError):
                answer = Answer.from_bytes(self._store.get(_key(user, key, day)))
                if answer.answered > now - _DAY:
                    return _same(answer, fingerprint)
        return None

    def note(self, user: str, key: str, answer: Answer) -> Answer:
        """Keep an answer; return it, or what the same request was answered meanwhile. Raises ProblemError as `earlier`."""
        name = _key(user, key, answer.answered)
        if self._store.create(name, answer.to_bytes()):
            return answer
        try:
            return _same(Answer.from_bytes(self._store.get(name)), answer.fingerprint)
        except (NotFoundError, DamagedRecordError):
            return answer


def _key(user: str, key: str, day: datetime) -> str:
    return keys.idempotency(day.strftime("%Y%m%d"), digest_of(user, key))


def _same(answer: Answer, fingerprint: str) -> Answer:
    if answer.fingerprint != fingerprint:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "This Idempotency-Key was used for another request: choose a new one for each.",
        )
    return answer


async def remove_expired_for_ever(store: ObjectStore) -> None:
    """Look every hour, until cancelled."""
    while True:
        try:
            await run_in_threadpool(remove_expired, store, datetime.now(UTC))
        except OcrfleetError as error:
            log.warning("what has expired is not removed now", error=str(error))
        await asyncio.sleep(_EVERY)


def remove_expired(store: ObjectStore, now: datetime) -> int:
    """Remove what was kept long enough; return how many objects. Harmless if several do it at once."""
    removed = 0
    for prefix, days in _DAYS.items():
        oldest = (now - timedelta(days=days)).strftime("%Y%m%d")
        for day in store.folders(prefix):
            if day < oldest:
                for key in list(store.list(f"{prefix}{day}/")):
                    store.delete(key)
                    removed += 1
    return removed
