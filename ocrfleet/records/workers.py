"""The state that a worker publishes about itself."""

from __future__ import annotations

from typing import Literal

from ocrfleet.records.base import Digest, Record


class WorkerState(Record):
    """What a worker says of itself at each heartbeat."""

    schema_version: Literal[1] = 1
    worker: str
    profile: str
    profile_digest: Digest
    #: since it was ready
    seconds: float = 0.0
    #: that the engine has read
    pages: int = 0
    #: that the engine has written
    tokens: int = 0
    #: with at least one page in hand
    busy_seconds: float = 0.0
    #: with fewer pages with the engine than it takes, while others were being made ready
    starved_seconds: float = 0.0
