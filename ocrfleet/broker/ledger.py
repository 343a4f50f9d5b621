"""Progress and faults of active documents, in Redis: a hint that says when to look, never what a page is.

A ledger that was never seeded, or that was lost, answers UNKNOWN; it is then seeded from a listing of the store.
Seeding and marking only ever set bits, so both may be repeated and may race.
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

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.workers import WorkerState

#: Seconds that a document's keys outlive the last touch: longer than any lease or pause, so that nothing is left for ever.
_TTL = 7 * 24 * 3600
#: Seconds that it is remembered how a worker ended.
_GRAVE = 24 * 3600

# KEYS: ledger, pages, inflight. ARGV: ttl, failed (0 or 1), page…
# A page that has a terminal record is in nobody's hand any more, whether the ledger knows its document or not.
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
# `published` starts at 0: whoever dispatches then publishes every page that has no record.
_SEED = """
for i = 4, #ARGV do redis.call('SETBIT', KEYS[2], ARGV[i], 1) end
if redis.call('HSETNX', KEYS[1], 'total', ARGV[2]) == 1 then
    redis.call('HSET', KEYS[1], 'failed', ARGV[3])
    redis.call('HSETNX', KEYS[1], 'published', 0)
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
"""

# KEYS: faults, inflight. ARGV: ttl, own worker, prefix of heartbeats, prefix of graves…
# What another worker left in flight, and its heartbeat is gone: it died with this page in its hands. Its grave says how, if
# anybody saw it: it is that of its process, which is the worker's name without its last part.
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

# … page… → for each page: attempts, deaths, deaths alone, reason, falls, how the last worker died,
# the last fault in words
_INSPECT = f"""{_IN_FLIGHT}
local faults = {{}}
for i = 5, #ARGV do
    local page = ARGV[i]
    held_by_other(page)
    faults[#faults + 1] = redis.call('HMGET', KEYS[1], page .. ':attempts', page .. ':deaths',
        page .. ':deaths_alone', page .. ':reason', page .. ':falls', page .. ':death', page .. ':detail')
end
return faults
"""

# KEYS: …, pages, ledger. … page, how it is held → taken when it is terminal or in another's hand, else it is the worker's
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


# KEYS: waiting. ARGV: queue/collection, pages more or less
# Before all was counted, or after Redis was wiped, a part of the truth would be taken for the whole.
_WAIT = """
if redis.call('HEXISTS', KEYS[1], 'known') == 0 then return end
if redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) <= 0 then redis.call('HDEL', KEYS[1], ARGV[1]) end
"""


# KEYS: ledger. ARGV: page
# A ledger that was forgotten meanwhile stays so: nobody would make it expire.
_PUBLISHED = (
    "if redis.call('HEXISTS', KEYS[1], 'total') == 1 then redis.call('HSET', KEYS[1], 'published', ARGV[1]) end"
)


class Hold(StrEnum):
    """What the ledger says to a worker that takes a page in hand."""

    #: the page is the worker's
    HELD = "held"
    #: it is terminal, or another living worker has it
    TAKEN = "taken"
    #: the page is the worker's; nothing else is known of its document, which may have been cancelled
    UNKNOWN = "unknown"


class Mark(StrEnum):
    """What the ledger says after a page was marked."""

    OPEN = "open"
    #: every page is terminal: time to assemble. Said again at every repetition.
    LAST = "last"
    #: this ledger does not know its total: seed it, then mark again
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Faults:
    """How often a page failed by itself, and how often a worker died while it was in flight."""

    attempts: int = 0
    deaths: int = 0
    deaths_alone: int = 0
    #: what the last fault of the page's own was
    reason: str | None = None
    #: how often its text was not believed: then the store knows how far up the ladder it is
    falls: int = 0
    #: how the last worker ended that died with it, if anybody saw that
    death: str | None = None
    #: the last fault of the page's own, in words
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerProgress:
    """How far a document is, in pages."""

    total: int
    #: number of the last page that was handed to the queue; the pages before it were handed over, too, or were terminal
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
    """Bytes that Redis uses, and that it may use (0: all there are); keys that it dropped for want of them."""

    used: int
    most: int
    evicted: int


def process_name(pid: int) -> str:
    """Return what a worker's process is called, here and by its supervisor; a worker's name has a random part more."""
    return f"{socket.gethostname()}.{pid}"


@contextmanager
def _broker_errors() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:  # away, full, failing over, read-only: it may pass
        metrics.REDIS_ERRORS.inc()
        raise TransientError(f"Redis can't be used: {error}") from error


class Ledger:
    """The ledgers of all documents on one Redis. Every call may raise TransientError and may then be repeated."""

    def __init__(self, url: str) -> None:
        self.redis: redis.Redis = redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=30)
        self._mark = self.redis.register_script(_MARK)
        self._seed = self.redis.register_script(_SEED)
        self._progress = self.redis.register_script(_PROGRESS)
        self._inspect = self.redis.register_script(_INSPECT)
        self._hold = self.redis.register_script(_HOLD)
        self._published = self.redis.register_script(_PUBLISHED)
        self._wait = self.redis.register_script(_WAIT)

    def seed(self, document: str, generation: int, *, total: int, done: Iterable[int], failed: Iterable[int]) -> None:
        """Tell the ledger its total and which pages a listing of the store showed to be terminal."""
        done, failed = list(done), list(failed)
        with _broker_errors():
            self._seed(
                keys=[keys.redis_ledger(document, generation), keys.redis_pages(document, generation)],
                args=[_TTL, total, len(failed), *done, *failed],
            )

    def mark(self, document: str, generation: int, pages: Sequence[int], *, failed: bool = False) -> Mark:
        """Note that these pages have a terminal record in the store, and are in nobody's hand.

        Call it after the record is written.
        """
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
        """Return the pages marked so far, from page `first` to page `last`; None when the ledger does not know its total."""
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
        """Return how far each (document, generation) is; None where the ledger does not know its total."""
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
        """Note that the document's pages up to this one were handed to the queue."""
        with _broker_errors():
            self._published(keys=[keys.redis_ledger(document, generation)], args=[page])

    def forget(self, document: str, generation: int) -> None:
        """Drop all that is known of a document; its terminal status is in the store."""
        with _broker_errors():
            self.redis.delete(
                keys.redis_ledger(document, generation),
                keys.redis_pages(document, generation),
                keys.redis_faults(document, generation),
                keys.redis_inflight(document, generation),
            )

    # ---- the true backlog: what waits in the store

    def wait(self, queue: str, collection: str, pages: int) -> None:
        """Count pages of a document that waits from now on, or, when they are fewer than none, no longer does."""
        with _broker_errors():
            self._wait(keys=[keys.REDIS_WAITING], args=[f"{queue}/{collection}", pages])

    def waiting(self) -> dict[tuple[str, str], int] | None:
        """Return the pages that wait, by queue and collection; None until they are counted from the store."""
        with _broker_errors():
            counted = cast("dict[bytes, bytes]", self.redis.hgetall(keys.REDIS_WAITING))
        if b"known" not in counted:
            return None
        places = ((name.decode().partition("/"), int(pages)) for name, pages in counted.items() if name != b"known")
        return {(queue, collection): pages for (queue, _, collection), pages in places}

    def counted(self, waiting: Mapping[tuple[str, str], int]) -> None:
        """Take what was counted from the store for what waits."""
        fields: dict[Any, Any] = {f"{queue}/{collection}": pages for (queue, collection), pages in waiting.items()}
        with _broker_errors():
            pipe = self.redis.pipeline()
            pipe.delete(keys.REDIS_WAITING)
            pipe.hset(keys.REDIS_WAITING, mapping=fields | {"known": int(time.time())})
            pipe.execute()

    # ---- faults, counted outside the broker

    def inspect(self, document: str, generation: int, page: int, *, worker: str) -> Faults:
        """Return a page's faults, after counting the death of a worker that held it and whose heartbeat is gone."""
        return self.inspect_all(document, generation, [page], worker=worker)[page]

    def inspect_all(self, document: str, generation: int, pages: Sequence[int], *, worker: str) -> dict[int, Faults]:
        """As `inspect`, for several pages at once."""
        with _broker_errors():
            answer = self._inspect(
                keys=[keys.redis_faults(document, generation), keys.redis_inflight(document, generation)],
                args=[_TTL, worker, keys.redis_worker(""), keys.redis_grave(""), *pages],
            )
        return {page: _faults(facts) for page, facts in zip(pages, answer, strict=True)}

    def hold(self, document: str, generation: int, page: int, *, worker: str, alone: bool) -> Hold:
        """Let a worker take a page in hand, with others or alone, unless it is terminal or in another living worker's hand.

        So of two copies of a job the page is read by one.
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
        """Note that the page is in nobody's hand: it was given back."""
        with _broker_errors():
            self.redis.hdel(keys.redis_inflight(document, generation), str(page))

    def fault(self, document: str, generation: int, page: int, reason: str, detail: str = "") -> int:
        """Count a fault of the page's own, remember what it was, and return how many there are."""
        key = keys.redis_faults(document, generation)
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            pipe.hincrby(key, f"{page}:attempts", 1)
            pipe.hset(key, mapping={f"{page}:reason": reason, f"{page}:detail": detail})
            pipe.expire(key, _TTL)
            return int(pipe.execute()[0])

    def fell(self, document: str, generation: int, page: int) -> None:
        """Count a text of the page that was not believed."""
        key = keys.redis_faults(document, generation)
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            pipe.hincrby(key, f"{page}:falls", 1)
            pipe.expire(key, _TTL)
            pipe.execute()

    # ---- workers

    def may_publish_again(self, document: str, generation: int, seconds: float) -> bool:
        """Say whether this one of several sweeps may publish again what a document misses; none else may, for so long."""
        with _broker_errors():
            key = keys.redis_sweep(document, generation)
            return bool(self.redis.set(key, b"", nx=True, px=int(seconds * 1000)))

    def heartbeat(self, state: WorkerState, seconds: float) -> None:
        """Say that the worker lives, for so many seconds, and how it does."""
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            pipe.set(keys.redis_worker(state.worker), state.to_bytes(), px=int(seconds * 1000))
            pipe.sadd(keys.REDIS_WORKERS, state.worker)
            pipe.execute()

    def workers(self) -> list[WorkerState]:
        """Return what the living workers say of themselves, by name; forget the dead."""
        with _broker_errors():
            names = sorted(cast("bytes", name).decode() for name in self.redis.smembers(keys.REDIS_WORKERS))
            if not names:
                return []
            said = self.redis.mget([keys.redis_worker(name) for name in names])
            dead = [name for name, state in zip(names, said, strict=True) if state is None]
            if dead:
                self.redis.srem(keys.REDIS_WORKERS, *dead)
        states = []
        for state in said:
            with suppress(DamagedRecordError):  # another version's: it lives, but nothing is known of it
                if state is not None:
                    states.append(WorkerState.from_bytes(cast("bytes", state)))
        return states

    def in_hand(self, documents: Sequence[tuple[str, int]]) -> list[int]:
        """Return how many pages of each (document, generation) are in a worker's hand, or were in that of one that died."""
        with _broker_errors():
            pipe = self.redis.pipeline(transaction=False)
            for document, generation in documents:
                pipe.hlen(keys.redis_inflight(document, generation))
            return [int(count) for count in pipe.execute()]

    def run(self) -> str:
        """Return what tells one start of Redis from another."""
        with _broker_errors():
            server: Any = self.redis.info("server")
        return str(server["run_id"])

    def memory(self) -> RedisMemory:
        """Return what Redis says of its memory."""
        with _broker_errors():
            memory: Any = self.redis.info("memory")
            stats: Any = self.redis.info("stats")
        return RedisMemory(
            used=int(memory["used_memory"]), most=int(memory["maxmemory"]), evicted=int(stats["evicted_keys"])
        )

    def renew(self, tags: Sequence[str]) -> None:
        """Set the lease time of these messages (kombu's delivery tags) to now, where they are still leased."""
        now = time.time()
        with _broker_errors():
            self.redis.zadd(keys.UNACKED_INDEX, dict.fromkeys(tags, now), xx=True)

    def record_exit(self, pid: int, seen: str) -> None:
        """Note how a worker's process on this machine ended, for those who find that it died with their page."""
        with _broker_errors():
            self.redis.set(keys.redis_grave(process_name(pid)), seen, ex=_GRAVE)

    def leave(self, worker: str) -> None:
        """Say that the worker is gone: whatever it still holds died with it."""
        with _broker_errors():
            self.redis.delete(keys.redis_worker(worker))
            self.redis.srem(keys.REDIS_WORKERS, worker)


def _faults(facts: Sequence[bytes | None]) -> Faults:
    """Return what _INSPECT answers for a page."""
    attempts, deaths, deaths_alone, reason, falls, death, detail = facts
    return Faults(
        attempts=int(attempts or 0),
        deaths=int(deaths or 0),
        deaths_alone=int(deaths_alone or 0),
        reason=reason.decode() if reason else None,
        falls=int(falls or 0),
        death=death.decode() if death else None,
        detail=detail.decode() if detail else None,
    )


def _bits(bitmap: bytes) -> Iterator[int]:
    for index, byte in enumerate(bitmap):
        for bit in range(8):
            if byte & (0x80 >> bit):
                yield index * 8 + bit
