"""What the API keeps for some days, and then no longer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from starlette.concurrency import run_in_threadpool

from ocrfleet import keys
from ocrfleet.errors import OcrfleetError

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: By the prefix that has a folder for each day. An answer is kept for 24 hours, which begin on one day and end on the next.
_DAYS = {keys.IDEMPOTENCY: 1, keys.ASKED: 7}
_EVERY = 3600.0


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
