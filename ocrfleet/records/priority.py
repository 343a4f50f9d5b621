"""The priorities of documents."""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """Priority of a document: interactive ones are dispatched before bulk ones, and have their own queues."""

    INTERACTIVE = "interactive"
    BULK = "bulk"
