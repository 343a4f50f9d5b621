"""The HTTP API as one ASGI app: `/v1`, its documentation at `/docs`, health and metrics."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog
from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ocrfleet.metrics.exposition import Exposition
from producer.api import problems
from producer.api.auth import Authenticator
from producer.api.dependencies import ApiContext
from producer.api.idempotency import StoredResponses, remove_expired_periodically
from producer.api.limits import ConcurrencyLimit
from producer.api.routes import docs, events, health, progress, submissions
from producer.api.routes import documents as document_routes
from producer.api.security_headers import SECURITY_HEADERS
from producer.api.submitter import Submitter
from producer.processes.converter import Converter

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.documents.service import DocumentService
    from producer.intake.batches import IntakeBatches

log = structlog.get_logger(__name__)

#: Threads for requests that poll, of the forty that run blocking calls.
_POLLING = 8
#: Connections for one request that may wait: with half of them, others are left for short requests.
_CONNECTIONS_PER_WAIT = 2
#: Processes that make outputs in formats that a document was not written in.
_CONVERTERS = 2
_SECURITY_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_DESCRIPTION = "Submit scanned documents, follow their progress, fetch their text. Errors are RFC 9457 problems that say what to do."


def create_app(
    settings: Settings,
    store: ObjectStore,
    ledger: Ledger,
    documents: DocumentService,
    batches: IntakeBatches,
    *,
    profile: Profile,
    stopping: threading.Event | None = None,
    exposition: Exposition | None = None,
) -> FastAPI:
    """Return the app. `profile` is used for documents that are submitted without one.

    Its threads stop with the app's lifespan; event streams end soon after `stopping` is set. Raises ConfigurationError, and
    TransientError when the store is away.
    """
    context = ApiContext(
        settings=settings,
        store=store,
        documents=documents,
        submitter=Submitter(settings, store, ledger, batches, profile),
        events=events.EventReceiver(settings, store, profile),
        responses=StoredResponses(store),
        authenticator=Authenticator(settings.api, store),
        readiness=health.Readiness(store, ledger),
        exposition=exposition or Exposition(settings),
        converter=Converter.of_fleet(settings, store, processes=_CONVERTERS),
        uploads=ConcurrencyLimit(settings.api.uploads_at_once, "uploads"),
        streams=ConcurrencyLimit(settings.api.streams, "event streams"),
        waits=ConcurrencyLimit(max(1, settings.api.connections // _CONNECTIONS_PER_WAIT), "requests that wait"),
        polling=CapacityLimiter(_POLLING),
        stopping=stopping or threading.Event(),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            for service in (context.submitter, context.events, context.readiness, context.converter):
                stack.callback(service.close)
            expiry = asyncio.create_task(remove_expired_periodically(store))
            yield
            expiry.cancel()
            with suppress(asyncio.CancelledError):
                await expiry

    app = FastAPI(
        title="ocrfleet",
        version=version("ocrfleet"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # A path with an extra slash is not found.
        redirect_slashes=False,
    )
    app.state.context = context
    for routes in (submissions, document_routes, progress, events, health, docs):
        app.include_router(routes.router)
    if settings.metrics_port is None:
        app.include_router(health.metrics_router)
    problems.install(app)
    app.add_middleware(_AccessLog)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            app.openapi_schema = problems.as_problems(made)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's way to customise it
    return app


class _AccessLog:
    """Adds security headers to each response, and logs the request without its query."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_SECURITY_HEADERS]
                log.info(
                    "api.request",
                    method=scope["method"],
                    path=scope["path"],
                    status=int(message["status"]),
                    seconds=round(time.monotonic() - begun, 3),
                )
            await send(message)

        await self._app(scope, receive, sent)
