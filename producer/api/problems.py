"""Errors as RFC 9457 problems: each says what the client can do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from ocrfleet.errors import NotFoundError, OcrfleetError, Reason, TransientError
from producer.api.security_headers import SECURITY_HEADERS
from producer.errors import ConflictError, UnanswerableError
from producer.intake.quotas import QuotaError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
#: Seconds after which a client should try again while the store or Redis is away.
_RETRY_AFTER = 5

log = structlog.get_logger(__name__)


class FieldError(BaseModel):
    """An error in one part of a request."""

    where: str
    what: str


class ProblemDetails(BaseModel):
    """Why a request failed, and what to do about it (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    #: why a file can't be read: the same reasons as for a document
    reason: Reason | None = None
    errors: list[FieldError] | None = None


class ProblemError(Exception):
    """Ends a request with a problem response."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        reason: Reason | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.reason = status, detail, headers, reason

    @classmethod
    def too_many(cls, detail: str, *, after: int) -> ProblemError:
        """Return a 429 problem; `after` is the number of seconds after which the client should try again."""
        return cls(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(after)})


def described(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI declaration of problem responses with these statuses; see `as_problems`."""
    return {int(status): {"model": ProblemDetails, "description": status.phrase} for status in statuses}


def as_problems(schema: dict[str, Any]) -> dict[str, Any]:
    """Set the media type of the problems in an OpenAPI document, and remove FastAPI's own error responses."""
    for path in schema["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            for status, response in list(responses.items()):
                # FastAPI declares them with the media type of the successful response.
                for media in list(response.get("content", {}).values()):
                    name = str(media.get("schema", {}).get("$ref", "")).rpartition("/")[2]
                    if name == ProblemDetails.__name__:
                        response["content"] = {MEDIA_TYPE: media}
                    elif name == "HTTPValidationError":
                        del responses[status]
    for name in ("HTTPValidationError", "ValidationError"):
        schema.get("components", {}).get("schemas", {}).pop(name, None)
    return schema


def install(app: FastAPI) -> None:
    """Make an app answer each error with a problem."""
    app.add_exception_handler(ProblemError, _refused)
    app.add_exception_handler(HTTPException, _unanswered)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(ValidationError, _malformed)
    app.add_exception_handler(OcrfleetError, _ours)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, _raised)


_INTERNAL = (
    "The server failed; your request is not the cause. The server's log has the error: report the time to its operator."
)
_STATUS: dict[type[OcrfleetError], HTTPStatus] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    UnanswerableError: HTTPStatus.BAD_REQUEST,
}
_DETAIL = {
    HTTPStatus.NOT_FOUND: "There is nothing at this path: /docs lists the endpoints.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This method is not allowed here: the Allow header lists those that are.",
}


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)  # noqa: S101 - for the type checker: it is registered for these
    return _answer(request, error.status, error.detail, headers=error.headers, reason=error.reason)


async def _unanswered(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
    return _answer(request, status, _DETAIL.get(status, str(error.detail)), headers=headers)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError | ValidationError)  # noqa: S101
    return _answer(
        request,
        HTTPStatus.BAD_REQUEST,
        "The request is malformed: correct what `errors` lists.",
        errors=_faults(error),
    )


async def _ours(request: Request, error: Exception) -> JSONResponse:
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return _answer(request, status, _sentence(error))
    if isinstance(error, QuotaError):
        # What no day has room for is not to be sent again.
        spent = HTTPStatus.FORBIDDEN if error.for_ever else HTTPStatus.TOO_MANY_REQUESTS
        headers = {} if error.for_ever else {"Retry-After": str(error.seconds)}
        return _answer(request, spent, _sentence(error), headers=headers)
    if isinstance(error, TransientError):
        log.warning("api.store_or_redis_away", path=request.url.path, error=str(error))
        detail, status = (
            "The object store or Redis is away: try again in some seconds.",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )
        return _answer(request, status, detail, headers={"Retry-After": str(_RETRY_AFTER)})
    log.error("api.request_failed", path=request.url.path, error=str(error))
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL)


async def _raised(request: Request, _: Exception) -> JSONResponse:
    # Starlette sends this response outside of all middleware.
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL, headers=SECURITY_HEADERS)


async def _disconnected(request: Request, _: Exception) -> JSONResponse:
    return _answer(
        request, HTTPStatus.BAD_REQUEST, "The connection broke while the request was received: send it again."
    )


def _allowed(request: Request) -> list[str]:
    """Return the methods of a path: each route object knows its own method only."""
    methods: set[str] = set()
    for path, operations in request.app.openapi()["paths"].items():
        if compile_path(path)[0].match(request.scope["path"]):
            methods |= {method.upper() for method in operations}
    return sorted(methods)


def _answer(
    request: Request,
    status: HTTPStatus,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    reason: Reason | None = None,
    errors: list[FieldError] | None = None,
) -> JSONResponse:
    problem = ProblemDetails(
        title=status.phrase,
        status=status,
        detail=detail,
        instance=quote(request.scope["path"]),
        reason=reason,
        errors=errors,
    )
    content = problem.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _faults(error: RequestValidationError | ValidationError) -> list[FieldError]:
    """Return the errors of a request, without its content."""
    return [FieldError(where=".".join(map(str, fault["loc"])), what=fault["msg"]) for fault in error.errors()]


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
