"""What the API's functions work with: made once for an app, and given to each of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Annotated, cast

from anyio import CapacityLimiter
from fastapi import Depends
from starlette.requests import Request

from ocrfleet.metrics.exposition import Exposition
from ocrfleet.settings import Settings
from ocrfleet.storage.store import ObjectStore
from producer.api.auth import Access
from producer.api.idempotency import Answers
from producer.api.limits import Slots
from producer.api.routes.events import Notices
from producer.api.routes.health import Health
from producer.api.submitter import Submitter
from producer.documents.service import DocumentService


@dataclass(frozen=True, slots=True)
class Parts:
    """Each may be used by several threads."""

    settings: Settings
    store: ObjectStore
    registry: DocumentService
    submitter: Submitter
    notices: Notices
    answers: Answers
    access: Access
    health: Health
    exposition: Exposition
    uploads: Slots
    streams: Slots
    #: threads that look again and again for those who wait: the others are for those who ask
    looking: CapacityLimiter
    #: set when the server is to end: streams end then
    stopping: threading.Event


def _parts(request: Request) -> Parts:
    return cast("Parts", request.app.state.parts)


Given = Annotated[Parts, Depends(_parts)]
