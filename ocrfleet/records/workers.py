"""The state that a worker publishes about itself."""

from __future__ import annotations

from typing import Literal

from ocrfleet.records.base import Digest, Record


class WorkerState(Record):
    """State of a worker, published at each heartbeat. Times are in seconds since it became ready."""

    schema_version: Literal[1] = 1
    worker: str
    profile: str
    profile_digest: Digest
    #: since the worker became ready
    seconds: float = 0.0
    #: pages that the engine has recognised
    pages: int = 0
    #: tokens that the engine has written
    tokens: int = 0
    #: seconds with at least one page in flight
    busy_seconds: float = 0.0
    #: seconds with free engine slots while pages were being prepared
    starved_seconds: float = 0.0
    #: parts of the sandbox that the worker's kernel lacks
    sandbox_missing: tuple[str, ...] | None = None
