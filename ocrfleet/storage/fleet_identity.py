"""The identity of a fleet: the same in its store and in its Redis, so that a process with a wrong setting refuses to start.

The control plane makes it and writes it to both. A process whose store or Redis is of another fleet would take jobs of documents
that it does not find, and acknowledge them.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Literal

import redis
from pydantic import Field

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError, NotFoundError, TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.base import Record

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore


_REMEDY = f"If this Redis is to serve this store from now on, remove its key {keys.REDIS_FLEET}"


class FleetIdentity(Record):
    """`fleet.json` in the store. Redis has the id."""

    schema_version: Literal[1] = 1
    id: str = Field(pattern=r"^[0-9a-f]{32}$")


def claim_redis(store: ObjectStore, client: redis.Redis) -> None:
    """Write the identity to a Redis that has none; make one for a new store.

    Raises ConfigurationError when Redis is of another fleet, TransientError when one of the two is away.
    """
    # Redis first: a store that is named by mistake stays as it is.
    if _of_redis(client) is None:
        store.create(keys.FLEET, FleetIdentity(id=uuid.uuid4().hex).to_bytes())
        ours = _of_store(store)
        if ours is not None:
            _of_redis(client, new=ours)
    check_fleet(store, client)


def check_fleet(store: ObjectStore, client: redis.Redis) -> None:
    """Raise ConfigurationError when the store and Redis are of two fleets, TransientError when one of them is away.

    A Redis without an identity is of no other fleet: it is new, was wiped, or its control plane has not started yet.
    """
    theirs = _of_redis(client)
    if theirs is None:
        return
    ours = _of_store(store)
    if ours is None:
        raise ConfigurationError(
            "OCRFLEET_STORE is wrong: it is not the store of the fleet at OCRFLEET_REDIS_URL, but one that no fleet has used, or an "
            f"earlier version only. {_REMEDY}"
        )
    if ours != theirs:
        raise ConfigurationError(
            f"OCRFLEET_STORE or OCRFLEET_REDIS_URL is wrong: the store is of fleet {ours[:8]}, Redis of fleet {theirs[:8]}. Each fleet "
            f"needs a Redis database of its own. {_REMEDY}"
        )


def _of_store(store: ObjectStore) -> str | None:
    try:
        return FleetIdentity.from_bytes(store.get(keys.FLEET)).id
    except NotFoundError:
        return None


def _of_redis(client: redis.Redis, *, new: str | None = None) -> str | None:
    """Return the identity in Redis, None when it has none; write a new one there unless it has one."""
    try:
        if new is not None:
            client.set(keys.REDIS_FLEET, new, nx=True)
        found = client.get(keys.REDIS_FLEET)
    except redis.RedisError as error:
        metrics.REDIS_ERRORS.inc()
        raise TransientError(f"Redis can't be used: {error}") from error
    return found.decode("ascii", "replace") if isinstance(found, bytes) else None
