"""Quotas: pages and bytes that a client, and each of its collections, may submit a day. Counted in Redis, for a day (UTC)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import redis

from ocrfleet import keys
from ocrfleet.errors import OcrfleetError, PermanentError, Reason, TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.tenants import plain_collection, tenant_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.settings import ApiSettings

#: Counters of collections that a client may begin in a day: it can make up any number of collections.
_MOST_COUNTERS = 20_000
#: Seconds for which a day's counters are kept.
_TTL = 2 * 24 * 3600
#: Tenants with a series of their own in metrics; further ones are added up.
_MOST_TENANTS = 200

# KEYS: counters of the day; and, of a take that may be repeated, its key
# ARGV: ttl, most counters of collections, field that counts them, then for each counter: field, amount, limit (-1: none)
# Takes all of the amounts or none; negative ones are given back, as far as they were counted.
# → 0, or the position of the counter that has no room, or -1 if there is none for its collection; and what is used
_TAKE = """
if KEYS[2] and redis.call('EXPIRE', KEYS[2], ARGV[1]) == 1 then return {0, 0} end
local begun = 0
for i = 4, #ARGV, 3 do
    local used = redis.call('HGET', KEYS[1], ARGV[i])
    local amount, limit = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    if not used and amount > 0 and string.sub(ARGV[i], 1, 3) == 'in/' then begun = begun + 1 end
    if amount > 0 and limit >= 0 and tonumber(used or 0) + amount > limit then return {i, tonumber(used or 0)} end
end
if begun > 0 then
    if tonumber(redis.call('HGET', KEYS[1], ARGV[3]) or 0) + begun > tonumber(ARGV[2]) then return {-1, 0} end
    redis.call('HINCRBY', KEYS[1], ARGV[3], begun)
end
for i = 4, #ARGV, 3 do
    local amount = tonumber(ARGV[i + 1])
    if amount < 0 then amount = -math.min(-amount, tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or 0)) end
    if amount ~= 0 then redis.call('HINCRBY', KEYS[1], ARGV[i], string.format('%.0f', amount)) end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
if KEYS[2] then redis.call('SET', KEYS[2], '', 'EX', ARGV[1]) end
return {0, 0}
"""


class QuotaError(OcrfleetError):
    """A submission is beyond a quota. `for_ever`: also on a day on which nothing else is submitted."""

    def __init__(self, detail: str, *, seconds: int, for_ever: bool) -> None:
        super().__init__(detail)
        #: seconds until the quota begins anew
        self.seconds = seconds
        self.for_ever = for_ever


@dataclass(frozen=True, slots=True)
class _Counter:
    field: str
    amount: int
    limit: int | None
    #: pages or bytes, and whose: for the message and the metric
    unit: str
    whose: str


class Quotas:
    """The quotas of the settings. Thread-safe; each call may raise TransientError while Redis is away, if there are any."""

    def __init__(self, settings: ApiSettings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._take = ledger.redis.register_script(_TAKE)
        self._tenants: set[str] = set()

    def check(self, client: str, size: int) -> None:
        """Raise QuotaError when a client has no room for so many bytes, before they are received."""
        limit = self._settings.bytes_a_day
        if limit is None:
            return
        counter = _Counter(_field(client, "bytes"), size, limit, "bytes", "client")
        with _away():
            used: Any = self._ledger.redis.hget(keys.redis_quotas(_today()), counter.field)
        if int(used or 0) + size > limit:
            self._refuse(counter, int(used or 0), "")

    @property
    def largest(self) -> int:
        """Bytes of a file at most."""
        return self._settings.upload_bytes

    def check_pages(self, pages: int) -> None:
        """Raise PermanentError for a file of which too many pages are to be read."""
        if pages > self._settings.upload_pages:
            raise PermanentError(
                Reason.TOO_LARGE,
                f"the file has {pages} pages to be read, and {self._settings.upload_pages} are allowed: choose some of them, or split it",
            )

    def take(self, client: str, collection: str, *, pages: int, size: int, once: str | None = None) -> str:
        """Take pages and bytes from the quotas of a client and of a collection (its stored name); return the day. Raises QuotaError.

        What has the same name in `once` is taken once, however often the call is repeated.
        """
        day = _today()
        counters = [
            counter
            for counter in self._counters(client, collection, pages, size)
            if counter.limit is not None and counter.amount
        ]
        if counters:
            failed, used = self._run(day, client, counters, once)
            if failed < 0:
                raise QuotaError("too many collections were used today", seconds=_until_midnight(), for_ever=False)
            if failed:
                self._refuse(counters[failed // 3 - 1], used, collection)
        label = self._label(tenant_of(collection))
        metrics.TENANT_PAGES.labels(label).inc(pages)
        metrics.TENANT_BYTES.labels(label).inc(size)
        return day

    def give_back(self, client: str, collection: str, *, pages: int, size: int, day: str) -> None:
        """Give back what was taken on a day for a submission that failed; as far as Redis is there."""
        counters = [
            counter for counter in self._counters(client, collection, -pages, -size) if counter.limit is not None
        ]
        if counters:
            with suppress(TransientError):
                self._run(day, client, counters, None)

    def _counters(self, client: str, collection: str, pages: int, size: int) -> list[_Counter]:
        settings = self._settings
        return [
            _Counter(_field(client, "pages"), pages, settings.pages_a_day, "pages", "client"),
            _Counter(_field(client, "bytes"), size, settings.bytes_a_day, "bytes", "client"),
            _Counter(f"in/{collection}/pages", pages, settings.collection_pages_a_day, "pages", "collection"),
            _Counter(f"in/{collection}/bytes", size, settings.collection_bytes_a_day, "bytes", "collection"),
        ]

    def _run(self, day: str, client: str, counters: Sequence[_Counter], once: str | None) -> tuple[int, int]:
        arguments = [
            part for each in counters for part in (each.field, each.amount, -1 if each.limit is None else each.limit)
        ]
        names = [keys.redis_quotas(day), *([] if once is None else [keys.redis_taken(once)])]
        with _away():
            failed, used = self._take(
                keys=names, args=[_TTL, _MOST_COUNTERS, _field(client, "collections"), *arguments]
            )
        return int(failed), int(used)

    def _refuse(self, counter: _Counter, used: int, collection: str) -> None:
        limit = counter.limit or 0
        reset = datetime.now(UTC) + timedelta(seconds=_until_midnight())
        whose = "your token" if counter.whose == "client" else f"the collection {plain_collection(collection)}"
        metrics.QUOTA_REFUSALS.labels(counter.unit if counter.whose == "client" else f"collection_{counter.unit}").inc()
        raise QuotaError(
            f"the quota of {whose} is {limit} {counter.unit} a day, of which {max(0, limit - used)} are left, and this needs "
            f"{counter.amount}; it begins anew at {reset:%Y-%m-%d} 00:00 UTC",
            seconds=_until_midnight(),
            for_ever=counter.amount > limit,
        )

    def _label(self, tenant: str) -> str:
        if len(self._tenants) < _MOST_TENANTS:
            self._tenants.add(tenant)
        return tenant if tenant in self._tenants else "others"


def _field(client: str, unit: str) -> str:
    return f"of/{client}/{unit}"


def _until_midnight() -> int:
    """Return the seconds until the next day begins."""
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return math.ceil((midnight - now).total_seconds())


def _today() -> str:
    return datetime.now(UTC).strftime("%Y%m%d")


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise TransientError(f"Redis can't be used: {error}") from error
