"""Services that the API's endpoints share: created once for an app, and injected into each endpoint."""

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
from producer.api.auth import Authenticator
from producer.api.idempotency import StoredResponses
from producer.api.limits import ConcurrencyLimit
from producer.api.routes.events import EventReceiver
from producer.api.routes.health import Readiness
from producer.api.submitter import Submitter
from producer.documents.service import DocumentService
from producer.processes.converter import Converter


@dataclass(frozen=True, slots=True)
class ApiContext:
    """The services. All of them are thread-safe."""

    settings: Settings
    store: ObjectStore
    documents: DocumentService
    submitter: Submitter
    events: EventReceiver
    responses: StoredResponses
    authenticator: Authenticator
    readiness: Readiness
    exposition: Exposition
    converter: Converter
    uploads: ConcurrencyLimit
    streams: ConcurrencyLimit
    #: requests that may wait, or whose body or response takes long: they hold a connection
    waits: ConcurrencyLimit
    #: threads for requests that poll: the others stay free for short requests
    polling: CapacityLimiter
    #: set when the server stops: event streams end then
    stopping: threading.Event


def _context(request: Request) -> ApiContext:
    return cast("ApiContext", request.app.state.context)


Context = Annotated[ApiContext, Depends(_context)]
