"""Errors as RFC 9457 has them: each answer that is none says what to do."""

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
from producer.errors import ConflictError, UnanswerableError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
#: Seconds after which it is worth to ask again while the store or Redis is away.
_AWAY = 5

log = structlog.get_logger(__name__)


class Fault(BaseModel):
    """What is wrong with one part of a request."""

    where: str
    what: str


class ProblemDetails(BaseModel):
    """Why a request was not done, and what to do about it (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    #: why a file can't be read, in the same words as for a document
    reason: Reason | None = None
    errors: list[Fault] | None = None


class ProblemError(Exception):
    """Ends a request with a problem."""

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
        """Say that there is no room now, and in how many seconds to ask again."""
        return cls(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(after)})


def described(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return how these problems are declared in OpenAPI; see `as_problems`."""
    return {int(status): {"model": ProblemDetails, "description": status.phrase} for status in statuses}


def as_problems(schema: dict[str, Any]) -> dict[str, Any]:
    """Give the problems of an OpenAPI document their media type, and take out what FastAPI says of its own errors."""
    for path in schema["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            for status, response in list(responses.items()):
                # FastAPI files them under the media type of what is answered when all is well.
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
    """Have an app answer every error as a problem."""
    app.add_exception_handler(ProblemError, _refused)
    app.add_exception_handler(HTTPException, _unanswered)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(ValidationError, _malformed)
    app.add_exception_handler(OcrfleetError, _ours)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _broken)


_INTERNAL = (
    "Something is wrong here, not with your request: the server's log says what. Tell its operator when you asked."
)
_STATUS: dict[type[OcrfleetError], HTTPStatus] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    UnanswerableError: HTTPStatus.BAD_REQUEST,
}
_SAID = {
    HTTPStatus.NOT_FOUND: "There is nothing at this path: /docs lists what can be asked.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This can't be done here: the Allow header names what can.",
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
    return _answer(request, status, _SAID.get(status, str(error.detail)), headers=headers)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError | ValidationError)  # noqa: S101
    return _answer(
        request,
        HTTPStatus.BAD_REQUEST,
        "The request is malformed: correct what `errors` name.",
        errors=_faults(error),
    )


async def _ours(request: Request, error: Exception) -> JSONResponse:
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return _answer(request, status, _sentence(error))
    if isinstance(error, TransientError):
        log.warning("not answered", path=request.url.path, error=str(error))
        detail, status = (
            "The object store or Redis is away: ask again in some seconds.",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )
        return _answer(request, status, detail, headers={"Retry-After": str(_AWAY)})
    log.error("not answered", path=request.url.path, error=str(error))
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL)


async def _broken(request: Request, _: Exception) -> JSONResponse:
    # Starlette answers this outside of every middleware.
    headers = {"X-Content-Type-Options": "nosniff"}
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, _INTERNAL, headers=headers)


async def _gone(request: Request, _: Exception) -> JSONResponse:
    return _answer(request, HTTPStatus.BAD_REQUEST, "The request broke off: send it again.")


def _allowed(request: Request) -> list[str]:
    """Return what can be done at a path: each of its routes, on its own, knows of itself only."""
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
    errors: list[Fault] | None = None,
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


def _faults(error: RequestValidationError | ValidationError) -> list[Fault]:
    """Say what is wrong with a request, without what stands in it."""
    return [Fault(where=".".join(map(str, fault["loc"])), what=fault["msg"]) for fault in error.errors()]


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
