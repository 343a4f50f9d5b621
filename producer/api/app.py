"""The HTTP API as one ASGI app: `/v1`, its description at `/docs`, health and metrics."""

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
from producer.api.auth import Access
from producer.api.dependencies import Parts
from producer.api.idempotency import Answers, remove_expired_for_ever
from producer.api.limits import Slots
from producer.api.routes import documents, health
from producer.api.routes import events as notices
from producer.api.routes import progress as following
from producer.api.routes import submissions as submitting
from producer.api.submitter import Submitter

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.documents.service import DocumentService
    from producer.intake.batches import IntakeBatches

log = structlog.get_logger(__name__)

#: Of the forty threads that do what blocks.
_LOOKING = 8
_DESCRIPTION = (
    "Send scanned documents, follow them, fetch their text. Errors are RFC 9457 problems, which say what to do."
)


def create_app(
    settings: Settings,
    store: ObjectStore,
    ledger: Ledger,
    registry: DocumentService,
    arrivals: IntakeBatches,
    *,
    profile: Profile,
    stopping: threading.Event | None = None,
    exposition: Exposition | None = None,
) -> FastAPI:
    """Return the app; what it begins ends with its lifespan. `profile` reads what asks for no other.

    Streams end soon after `stopping` was set. Raises ConfigurationError, and TransientError when the store is away.
    """
    parts = Parts(
        settings=settings,
        store=store,
        registry=registry,
        submitter=Submitter(settings, store, ledger, arrivals, profile),
        notices=notices.Notices(settings, store, profile),
        answers=Answers(store),
        access=Access(settings.api),
        health=health.Health(store, ledger),
        exposition=exposition or Exposition(settings),
        uploads=Slots(settings.api.uploads_at_once, "uploads"),
        streams=Slots(settings.api.streams, "streams of progress"),
        looking=CapacityLimiter(_LOOKING),
        stopping=stopping or threading.Event(),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            for part in (parts.submitter, parts.notices, parts.health):
                stack.callback(part.close)
            expiry = asyncio.create_task(remove_expired_for_ever(store))
            yield
            expiry.cancel()
            with suppress(asyncio.CancelledError):
                await expiry

    app = FastAPI(
        title="ocrfleet",
        version=version("ocrfleet"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        # A path with a slash too many is a path that isn't there.
        redirect_slashes=False,
    )
    app.state.parts = parts
    for router in (submitting.router, documents.router, following.router, notices.router, health.router):
        app.include_router(router)
    problems.install(app)
    app.add_middleware(_Outermost)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            app.openapi_schema = problems.as_problems(made)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to change it
    return app


class _Outermost:
    """Gives every answer its security headers, and logs it, without what the query says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
                log.info(
                    "answered",
                    method=scope["method"],
                    path=scope["path"],
                    status=int(message["status"]),
                    seconds=round(time.monotonic() - begun, 3),
                )
            await send(message)

        await self._app(scope, receive, sent)
