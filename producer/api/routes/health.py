"""Health: `/healthz`, `/readyz` and `/metrics`. They need no token, /metrics only by OCRFLEET_API_METRICS_WITH_TOKEN."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

import structlog
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from producer.api.auth import Bearer, user
from producer.api.problems import ProblemError, described

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore

#: Seconds that Redis and the store may take to answer.
_DEADLINE = 3.0
#: A key that need not exist: any response shows that the store is there.
_ANY_KEY = "ready"

log = structlog.get_logger(__name__)
router = APIRouter(tags=["health"])


class Healthy(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness:
    """Checks Redis and the store, with one request to each at a time, however many clients ask."""

    def __init__(self, store: ObjectStore, ledger: Ledger) -> None:
        self._checks: dict[str, Callable[[], object]] = {
            "Redis": ledger.redis.ping,
            "the object store": lambda: store.exists(_ANY_KEY),
        }
        self._running: dict[str, Future[object]] = {}
        self._pool = ThreadPoolExecutor(len(self._checks), thread_name_prefix="health")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def missing(self) -> list[str]:
        """Return the names of what can't be reached."""
        names = list(self._checks)
        answers = await asyncio.gather(*(self._reached(name) for name in names))
        return [name for name, reached in zip(names, answers, strict=True) if not reached]

    async def _reached(self, name: str) -> bool:
        running = self._running.get(name)
        if running is None or running.done():
            running = self._running[name] = self._pool.submit(self._checks[name])
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(running)), _DEADLINE)
        except Exception as error:  # noqa: BLE001 - any error means not ready
            log.warning("api.not_ready", part=name, error=str(error) or type(error).__name__)
            return False
        return True


@router.get("/healthz", response_model=Healthy, operation_id="alive")
async def alive() -> Healthy:
    """Return 200 while the process is alive."""
    return Healthy()


@router.get(
    "/readyz", response_model=Healthy, operation_id="ready", responses=described(HTTPStatus.SERVICE_UNAVAILABLE)
)
async def ready(request: Request) -> Healthy:
    """Return 200 when Redis and the object store can be reached, else 503."""
    readiness: Readiness = request.app.state.context.readiness
    missing = await readiness.missing()
    if missing:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"No response within {_DEADLINE:g} seconds, or an error, from {' and '.join(missing)}: the server's log has the error.",
            headers={"Retry-After": "5"},
        )
    return Healthy()


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}},
        **described(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN),
    },
)
async def metrics(request: Request, credentials: Bearer) -> Response:
    """Return the metrics of this process, its children and, while it leads, of the fleet, in Prometheus' text format."""
    context = request.app.state.context
    if context.settings.api.metrics_with_token:
        user(request, credentials)
    page = await run_in_threadpool(context.exposition.page)
    return Response(page, media_type=CONTENT_TYPE_LATEST)
