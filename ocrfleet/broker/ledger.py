"""Ledger: progress and faults of active documents, in Redis. A hint when to read the store, not the state of a page.

For a document that is not seeded, or whose keys are lost, calls return UNKNOWN; seed it then from a listing of the store.
Seeding and marking only set bits, so both are idempotent and may run concurrently.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import redis
from redis.sentinel import Sentinel

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError, DamagedRecordError, TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.workers import WorkerState
from ocrfleet.redis_url import checked, sentinel_options, sentinels

#: Seconds until the keys of a document expire after their last use: longer than any lease or pause.
_TTL = 7 * 24 * 3600
#: Seconds until the recorded exit of a worker process expires.
_EXIT_TTL = 24 * 3600

# KEYS: ledger, pages, inflight. ARGV: ttl, failed (0 or 1), page…
# A page with a terminal record is not in flight, also if the ledger does not know its document.
_MARK = """
for i = 3, #ARGV do redis.call('HDEL', KEYS[3], ARGV[i]) end
local total = tonumber(redis.call('HGET', KEYS[1], 'total'))
if not total then return 'unknown' end
for i = 3, #ARGV do
    if redis.call('SETBIT', KEYS[2], ARGV[i], 1) == 0 and ARGV[2] == '1' then
        redis.call('HINCRBY', KEYS[1], 'failed', 1)
    end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
if redis.call('BITCOUNT', KEYS[2]) >= total then return 'last' end
return 'open'
"""

# KEYS: ledger, pages. ARGV: ttl, total, failed, terminal page…
# `published` starts at 0: the dispatcher then publishes each page without a record.
_SEED = """
for i = 4, #ARGV do redis.call('SETBIT', KEYS[2], ARGV[i], 1) end
if redis.call('HSETNX', KEYS[1], 'total', ARGV[2]) == 1 then
    redis.call('HSET', KEYS[1], 'failed', ARGV[3])
    redis.call('HSETNX', KEYS[1], 'published', 0)
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
"""

# KEYS: faults, inflight. ARGV: ttl, own worker, prefix of heartbeats, prefix of exits…
# If another worker has the page in flight and its heartbeat has expired, that worker died while it read the page. Its supervisor
# may have recorded the exit of the process (the name of the worker without its last part).
_IN_FLIGHT = """
local function held_by_other(page)
    local held = redis.call('HGET', KEYS[2], page)
    if not held then return false end
    local worker, how = string.match(held, '^(.*) (%a+)$')
    if worker == ARGV[2] then return false end
    if redis.call('EXISTS', ARGV[3] .. worker) == 1 then return true end
    redis.call('HDEL', KEYS[2], page)
    local field = how == 'alone' and ':deaths_alone' or ':deaths'
    redis.call('HINCRBY', KEYS[1], page .. field, 1)
    local seen = redis.call('GET', ARGV[4] .. (string.match(worker, '^(.*)%.[^.]*$') or worker))
    if seen then redis.call('HSET', KEYS[1], page .. ':death', seen) end
    redis.call('EXPIRE', KEYS[1], ARGV[1])
    return false
end
"""

# … page… → for each page: attempts, deaths, deaths alone, reason, failed attempts, exit of the last worker that died,
# detail of the last fault; late renderings of the document
_INSPECT = f"""{_IN_FLIGHT}
local faults = {{}}
for i = 5, #ARGV do
    local page = ARGV[i]
    held_by_other(page)
    faults[#faults + 1] = redis.call('HMGET', KEYS[1], page .. ':attempts', page .. ':deaths',
        page .. ':deaths_alone', page .. ':reason', page .. ':falls', page .. ':death', page .. ':detail', 'late')
end
return faults
"""

# KEYS: …, pages, ledger. ARGV: …, page, alone or shared → 'taken' if the page is terminal or in flight at another worker
_HOLD = f"""{_IN_FLIGHT}
if redis.call('GETBIT', KEYS[3], ARGV[5]) == 1 or held_by_other(ARGV[5]) then return 'taken' end
redis.call('HSET', KEYS[2], ARGV[5], ARGV[2] .. ' ' .. ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[1])
return redis.call('EXISTS', KEYS[4]) == 1 and 'held' or 'unknown'
"""


# KEYS: ledger, pages. → total, last page published, failed, terminal, terminal up to the last page published
_PROGRESS = """
local total, published, failed = unpack(redis.call('HMGET', KEYS[1], 'total', 'published', 'failed'))
if not total then return false end
local queued = redis.call('BITCOUNT', KEYS[2], 0, published, 'BIT')
return {total, published, failed, redis.call('BITCOUNT', KEYS[2]), queued}
"""


# KEYS: waiting. ARGV: queue/collection, number of pages to add
# No change without a full count (after Redis lost its data): a partial count would look complete.
_WAIT = """
if redis.call('HEXISTS', KEYS[1], 'known') == 0 then return end
if redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) <= 0 then redis.call('HDEL', KEYS[1], ARGV[1]) end
"""


# KEYS: ledger. ARGV: page
# Do not create a ledger that was removed meanwhile: it would never expire.
_PUBLISHED = (
    "if redis.call('HEXISTS', KEYS[1], 'total') == 1 then redis.call('HSET', KEYS[1], 'published', ARGV[1]) end"
)


class Hold(StrEnum):
    """Result of `Ledger.hold`."""

    #: the worker holds the page
    HELD = "held"
    #: the page is terminal, or in flight at another running worker
    TAKEN = "taken"
    #: the worker holds the page; the ledger does not know the document, which may be cancelled
    UNKNOWN = "unknown"


class Mark(StrEnum):
    """Result of `Ledger.mark`."""

    OPEN = "open"
    #: each page is terminal: the document can be assembled. Repeated calls return the same.
    LAST = "last"
    #: the ledger does not know the document: seed it, then mark again
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults of a page, and deaths of workers while it was in flight."""

    attempts: int = 0
    deaths: int = 0
    deaths_alone: int = 0
    #: reason of the last fault of the page
    reason: str | None = None
    #: failed attempts, for any reason; if not 0, the store has the retry state of the page
    failed_attempts: int = 0
    #: exit of the last worker that died while it read the page, if a supervisor recorded it
    death: str | None = None
    #: description of the last fault of the page
    detail: str | None = None
    #: renderings of the document, in this generation, that exceeded their time limit
    late_renderings: int = 0


@dataclass(frozen=True, slots=True)
class LedgerProgress:
    """Progress of a document, in pages."""

    total: int
    #: number of the last published page; all pages before it are published or terminal
    published: int
    failed: int
    terminal: int
    #: terminal pages up to the last one published
    terminal_published: int

    @property
    def complete(self) -> bool:
        return self.terminal >= self.total


@dataclass(frozen=True, slots=True)
class RedisMemory:
    """Memory of Redis: bytes used, limit in bytes (0: none), and keys that were evicted."""

    used: int
    most: int
    evicted: int


def process_name(pid: int) -> str:
    """Return the name of a worker process, as the worker and its supervisor use it. The name of a worker has a random part in addition."""
    return f"{socket.gethostname()}.{pid}"


@contextmanager
def _broker_errors() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:  # unreachable, full, failing over or read-only: may be temporary
        metrics.REDIS_ERRORS.inc()
        raise TransientError(f"Redis can't be used: {error}") from error


def _client(url: str) -> redis.Redis:
    """Return a client of the Redis, or of the master that sentinels name at each new connection."""
    named = sentinels(url)
    if named is None:
        client: redis.Redis = redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=30)
        return client
    asked: Any = Sentinel(named.addresses, sentinel_kwargs=sentinel_options(named))  # type: ignore[no-untyped-call]
    master: redis.Redis = asked.master_for(
        named.master,
        db=named.database,
        username=named.username,
        password=named.password,
        socket_connect_timeout=5,
        socket_timeout=30,
    )
    return master


class Ledger:
    """The ledgers of all documents in one Redis. Each call may raise TransientError, and is safe to repeat.

    Raises ConfigurationError for an invalid URL.
    """

    def __init__(self, url: str) -> None:
        try:
            checked(url)
        except ValueError as error:
            raise ConfigurationError(f"OCRFLEET_REDIS_URL {error}") from None
        self.redis = _client(url)
        self._mark = self.redis.register_script(_MARK)
        self._seed = self.redis.register_script(_SEED)
        self._progress = self.redis.register_script(_PROGRESS)
        self._inspect = self.redis.register_script(_INSPECT)
        self._hold = self.redis.register_script(_HOLD)
        self._published = self.redis.register_script(_PUBLISHED)
        self._wait = self.redis.register_script(_WAIT)

    def seed(self, document: str, generation: int, *, total: int, done: Iterable[int], failed: Iterable[int]) -> None:
        """Set the document's total, and mark the pages that are terminal by a listing of the store."""
        done, failed = list(done), list(failed)
        with _broker_errors():
            self._seed(
                keys=[keys.redis_ledger(document, generation), keys.redis_pages(document, generation)],
                args=[_TTL, total, len(failed), *done, *failed],
            )

    def mark(self, document: str, generation: int, pages: Sequence[int], *, failed: bool = False) -> Mark:
        """Mark pages as terminal and not in flight. Call it after their records are written."""
        with _broker_errors():
            answer = self._mark(
                keys=[
                    keys.redis_ledger(document, generation),
                    keys.redis_pages(document, generation),
                    keys.redis_inflight(document, generation),
                ],
                args=[_TTL, int(failed), *pages],
            )
        return Mark(answer.decode())

    def terminal(self, document: str, generation: int, *, first: int = 1, last: int | None = None) -> set[int] | None:
        """Return the terminal pages from `first` to `last`; None when the ledger does not know the document."""
        byte = first // 8
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            pipe.hexists(keys.redis_ledger(document, generation), "total")
            pipe.getrange(keys.redis_pages(document, generation), byte, -1 if last is None else last // 8)
            known, bitmap = pipe.execute()
        if not known:
            return None
        marked = (page + 8 * byte for page in _bits(bitmap))
        return {page for page in marked if first <= page and (last is None or page <= last)}

    def progress(self, documents: Sequence[tuple[str, int]]) -> list[LedgerProgress | None]:
        """Return the progress of each (document, generation); None where the ledger does not know the document."""
        if not documents:
            return []
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            for document, generation in documents:
                names = [keys.redis_ledger(document, generation), keys.redis_pages(document, generation)]
                self._progress(keys=names, client=pipe)
            answers = pipe.execute()
        return [LedgerProgress(*map(int, answer)) if answer else None for answer in answers]

    def published(self, document: str, generation: int, page: int) -> None:
        """Record that the document's pages up to this one are published."""
        with _broker_errors():
            self._published(keys=[keys.redis_ledger(document, generation)], args=[page])

    def forget(self, document: str, generation: int) -> None:
        """Remove all keys of a document whose terminal status is in the store."""
        with _broker_errors():
            self.redis.delete(
                keys.redis_ledger(document, generation),
                keys.redis_pages(document, generation),
                keys.redis_faults(document, generation),
                keys.redis_inflight(document, generation),
            )

    # ---- pages that wait in the store

    def wait(self, queue: str, collection: str, pages: int) -> None:
        """Add to the count of waiting pages; a negative number subtracts."""
        with _broker_errors():
            self._wait(keys=[keys.REDIS_WAITING], args=[f"{queue}/{collection}", pages])

    def waiting(self) -> dict[tuple[str, str], int] | None:
        """Return the number of waiting pages by (priority, collection); None until they are counted from the store."""
        with _broker_errors():
            counted = cast("dict[bytes, bytes]", self.redis.hgetall(keys.REDIS_WAITING))
        if b"known" not in counted:
            return None
        places = ((name.decode().partition("/"), int(pages)) for name, pages in counted.items() if name != b"known")
        return {(queue, collection): pages for (queue, _, collection), pages in places}

    def counted(self, waiting: Mapping[tuple[str, str], int]) -> None:
        """Replace the count of waiting pages by a count of the store."""
        fields: dict[Any, Any] = {f"{queue}/{collection}": pages for (queue, collection), pages in waiting.items()}
        with _broker_errors():
            pipe = self.redis.pipeline()
            pipe.delete(keys.REDIS_WAITING)
            pipe.hset(keys.REDIS_WAITING, mapping=fields | {"known": int(time.time())})
            pipe.execute()

    # ---- faults and pages in flight

    def inspect(self, document: str, generation: int, page: int, *, worker: str) -> Faults:
        """Return the faults of a page. Counts a death first if the worker with the page in flight has no heartbeat."""
        return self.inspect_all(document, generation, [page], worker=worker)[page]

    def inspect_all(self, document: str, generation: int, pages: Sequence[int], *, worker: str) -> dict[int, Faults]:
        """Return the faults of several pages, as `inspect` does."""
        with _broker_errors():
            answer = self._inspect(
                keys=[keys.redis_faults(document, generation), keys.redis_inflight(document, generation)],
                args=[_TTL, worker, keys.redis_worker(""), keys.redis_grave(""), *pages],
            )
        return {page: _faults(facts) for page, facts in zip(pages, answer, strict=True)}

    def hold(self, document: str, generation: int, page: int, *, worker: str, alone: bool) -> Hold:
        """Take a page for a worker, unless it is terminal or in flight at another running worker.

        `alone`: no other page is in flight at this worker. If a job was delivered twice, only one worker gets the page.
        """
        names = (keys.redis_faults, keys.redis_inflight, keys.redis_pages, keys.redis_ledger)
        prefixes = keys.redis_worker(""), keys.redis_grave("")
        with _broker_errors():
            held = self._hold(
                keys=[name(document, generation) for name in names],
                args=[_TTL, worker, *prefixes, page, "alone" if alone else "shared"],
            )
        return Hold(held.decode())

    def release(self, document: str, generation: int, page: int) -> None:
        """Record that a page is not in flight any more."""
        with _broker_errors():
            self.redis.hdel(keys.redis_inflight(document, generation), str(page))

    def fault(self, document: str, generation: int, page: int, reason: str, detail: str = "") -> int:
        """Count a fault of a page, with its reason, and return the number of faults."""
        key = keys.redis_faults(document, generation)
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            pipe.hincrby(key, f"{page}:attempts", 1)
            pipe.hset(key, mapping={f"{page}:reason": reason, f"{page}:detail": detail})
            pipe.expire(key, _TTL)
            return int(pipe.execute()[0])

    def count_late_rendering(self, document: str, generation: int) -> int:
        """Count a rendering of the document that exceeded its time limit, and return how many did."""
        key = keys.redis_faults(document, generation)
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            pipe.hincrby(key, "late", 1)
            pipe.expire(key, _TTL)
            return int(pipe.execute()[0])

    def count_failed_attempt(self, document: str, generation: int, page: int) -> None:
        """Count a failed attempt at the page, after its retry state was stored."""
        key = keys.redis_faults(document, generation)
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            pipe.hincrby(key, f"{page}:falls", 1)
            pipe.expire(key, _TTL)
            pipe.execute()

    # ---- workers

    def may_publish_again(self, document: str, generation: int, seconds: float) -> bool:
        """Return whether this sweep may publish lost jobs of a document; other sweeps may not for `seconds`."""
        with _broker_errors():
            key = keys.redis_sweep(document, generation)
            return bool(self.redis.set(key, b"", nx=True, px=int(seconds * 1000)))

    def heartbeat(self, state: WorkerState, seconds: float) -> None:
        """Store the state of a worker; it expires after `seconds`."""
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            pipe.set(keys.redis_worker(state.worker), state.to_bytes(), px=int(seconds * 1000))
            pipe.sadd(keys.REDIS_WORKERS, state.worker)
            pipe.execute()

    def workers(self) -> list[WorkerState]:
        """Return the states of running workers, sorted by name. Removes the names of dead workers."""
        with _broker_errors():
            names = sorted(cast("bytes", name).decode() for name in self.redis.smembers(keys.REDIS_WORKERS))
            if not names:
                return []
            stored = self.redis.mget([keys.redis_worker(name) for name in names])
            dead = [name for name, state in zip(names, stored, strict=True) if state is None]
            if dead:
                self.redis.srem(keys.REDIS_WORKERS, *dead)
        states = []
        for state in stored:
            with suppress(DamagedRecordError):  # can't be parsed: written by another version
                if state is not None:
                    states.append(WorkerState.from_bytes(cast("bytes", state)))
        return states

    def in_hand(self, documents: Sequence[tuple[str, int]]) -> list[int]:
        """Return the number of pages in flight of each (document, generation), including those of dead workers."""
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            for document, generation in documents:
                pipe.hlen(keys.redis_inflight(document, generation))
            return [int(count) for count in pipe.execute()]

    def run(self) -> str:
        """Return the run id of the Redis server, which changes at each start."""
        with _broker_errors():
            server: Any = self.redis.info("server")
        return str(server["run_id"])

    def memory(self) -> RedisMemory:
        """Return the memory use of Redis."""
        with _broker_errors():
            memory: Any = self.redis.info("memory")
            stats: Any = self.redis.info("stats")
        return RedisMemory(
            used=int(memory["used_memory"]), most=int(memory["maxmemory"]), evicted=int(stats["evicted_keys"])
        )

    def renew(self, tags: Sequence[str]) -> None:
        """Renew the leases of these messages (kombu's delivery tags), if they are still leased."""
        now = time.time()
        with _broker_errors():
            self.redis.zadd(keys.UNACKED_INDEX, dict.fromkeys(tags, now), xx=True)

    def record_exit(self, pid: int, seen: str) -> None:
        """Record the exit of a worker process on this machine, for workers that take over its pages."""
        with _broker_errors():
            self.redis.set(keys.redis_grave(process_name(pid)), seen, ex=_EXIT_TTL)

    def leave(self, worker: str) -> None:
        """Remove the heartbeat of a worker. Pages that it still has in flight then count as a worker death."""
        with _broker_errors():
            self.redis.delete(keys.redis_worker(worker))
            self.redis.srem(keys.REDIS_WORKERS, worker)


def _faults(facts: Sequence[bytes | None]) -> Faults:
    """Parse the answer of _INSPECT for a page."""
    attempts, deaths, deaths_alone, reason, falls, death, detail, late = facts
    return Faults(
        attempts=int(attempts or 0),
        deaths=int(deaths or 0),
        deaths_alone=int(deaths_alone or 0),
        reason=reason.decode() if reason else None,
        failed_attempts=int(falls or 0),
        death=death.decode() if death else None,
        detail=detail.decode() if detail else None,
        late_renderings=int(late or 0),
    )


def _bits(bitmap: bytes) -> Iterator[int]:
    for index, byte in enumerate(bitmap):
        for bit in range(8):
            if byte & (0x80 >> bit):
                yield index * 8 + bit
