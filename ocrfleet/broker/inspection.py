"""Inspection of the messages in Redis: waiting, or delivered and not acknowledged."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

import redis
from pydantic_core import from_json

from ocrfleet import keys
from ocrfleet.broker.celery_app import MESSAGES, publish_errors
from ocrfleet.errors import PermanentError
from ocrfleet.records.messages import AssemblyJob, IntakeJob, Message, PageJob
from ocrfleet.records.priority import Priority


class MessageInspector:
    """Reads messages on queues and leases of workers. The only place that reads kombu's own keys."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def waiting(self, profiles: Iterable[str]) -> dict[str, int]:
        """Return how many page jobs wait on the queues of each profile, without those leased to workers."""
        with publish_errors():
            return {
                profile: sum(int(self._redis.llen(keys.queue_pages(queue, profile))) for queue in Priority)
                for profile in profiles
            }

    def intakes(self) -> set[str]:
        """Return the keys of the intake batches whose job waits or is leased; see `jobs`."""
        return {job.arrival for job in self._messages([keys.QUEUE_INTAKE]) if isinstance(job, IntakeJob)}

    def jobs(self, queues: Iterable[str]) -> tuple[list[PageJob], set[tuple[str, int]]]:
        """Return the page jobs, and the (document, generation) of the assembly jobs, that wait or are leased.

        Queues are read before leases, so a message in delivery is always found. A message that is returned to its queue at
        that moment may be missed: treat a message as lost only if two calls miss it.
        """
        messages = self._messages(queues)
        pages = [job for job in messages if isinstance(job, PageJob)]
        return pages, {(job.document, job.generation) for job in messages if isinstance(job, AssemblyJob)}

    def leases(self, *, begun_before: float) -> dict[str, float]:
        """Return the last renewal time of leases, by delivery tag; only those renewed before a Unix time."""
        with publish_errors():
            found: Any = self._redis.zrangebyscore(keys.UNACKED_INDEX, "-inf", begun_before, withscores=True)
        return {tag.decode(): float(since) for tag, since in found}

    def leased_since(self, tags: Sequence[str]) -> dict[str, float | None]:
        """Return the last renewal time of these delivery tags; None for a message without a lease."""
        if not tags:
            return {}
        with publish_errors():
            since: Any = self._redis.zmscore(keys.UNACKED_INDEX, list(tags))
        return dict(zip(tags, since, strict=True))

    def pull_back_leases(self, now: float, lease_seconds: float) -> int:
        """Set leases with a start in the future to now; return their number. Raises TransientError.

        A clock that was set back leaves such leases: without this, jobs of a dead worker would stay leased until the clock
        passes their start.
        """
        with publish_errors():
            ahead = cast("list[bytes]", self._redis.zrangebyscore(keys.UNACKED_INDEX, now + lease_seconds, "+inf"))
            if ahead:
                self._redis.zadd(keys.UNACKED_INDEX, dict.fromkeys(ahead, now), xx=True)
        return len(ahead)

    def _messages(self, queues: Iterable[str]) -> list[Message]:
        found: list[Message] = []
        with publish_errors():
            bodies = [(message, False) for queue in queues for message in self._redis.lrange(queue, 0, -1)]
            bodies += [(leased, True) for leased in self._redis.hvals(keys.UNACKED)]
        for body, leased in bodies:
            # Skip messages of other programs or versions. A text that is nested too deeply is a ValueError of this parser.
            with suppress(PermanentError, LookupError, TypeError, ValueError):
                message = from_json(body)[0] if leased else from_json(body)
                task, argument = message["headers"]["task"], from_json(base64.b64decode(message["body"]))[0][0]
                found.append(MESSAGES[task].from_message(argument))
        return found
