"""Health: `/healthz` and `/readyz`, which need no token, and `/metrics`, which Authenticator.scraper guards.

With OCRFLEET_METRICS_PORT they are on a port of their own (ocrfleet/metrics/exposition.py), where clients of the API take no
connection away from them; `/metrics` is only there then.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent import futures
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

from producer.api.auth import Bearer, scraper
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
metrics_router = APIRouter(tags=["health"])


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
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(len(self._checks), thread_name_prefix="health")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def missing(self) -> list[str]:
        """Return the names of what can't be reached."""
        running = self._begun()
        waiting = [asyncio.shield(asyncio.wrap_future(check)) for check in running.values()]
        await asyncio.wait(waiting, timeout=_DEADLINE)
        for check in waiting:
            check.add_done_callback(_ignore_error)
        return _away(running)

    def missing_now(self) -> list[str]:
        """Return the same, for a thread outside of the event loop; blocks."""
        running = self._begun()
        futures.wait(running.values(), timeout=_DEADLINE)
        return _away(running)

    def _begun(self) -> dict[str, Future[object]]:
        """Begin the checks that are not running."""
        with self._lock:
            for name, check in self._checks.items():
                running = self._running.get(name)
                if running is None or running.done():
                    self._running[name] = self._pool.submit(check)
            return dict(self._running)


def _away(checks: dict[str, Future[object]]) -> list[str]:
    """Return the names of the checks that failed or have not ended."""
    away = []
    for name, check in checks.items():
        error = check.exception() if check.done() else TimeoutError()
        if error is not None:
            log.warning("api.not_ready", part=name, error=str(error) or type(error).__name__)
            away.append(name)
    return away


def _ignore_error(future: asyncio.Future[object]) -> None:
    """Retrieve the error of a check whose result was taken from its own future."""
    if not future.cancelled():
        future.exception()


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


@metrics_router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}},
        **described(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN),
    },
)
async def metrics(request: Request, credentials: Bearer) -> Response:
    """Return the metrics of this process, its children and, while it leads, of the fleet, in Prometheus' text format.

    Where there are tokens of tenants, only an `admin` of the default tenant may read them.
    """
    context = request.app.state.context
    await run_in_threadpool(scraper, request, credentials)
    page = await run_in_threadpool(context.exposition.page)
    return Response(page, media_type=CONTENT_TYPE_LATEST)
