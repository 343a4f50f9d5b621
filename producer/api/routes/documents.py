"""Documents over HTTP: what is known of them, what became of them, what may be asked for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from typing import Annotated, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from ocrfleet.errors import NotFoundError
from ocrfleet.records.base import Collection
from ocrfleet.records.pages import PageResult
from producer.api.auth import user
from producer.api.dependencies import Given
from producer.api.problems import ProblemError, described
from producer.api.submitter import Format
from producer.documents.views import Documents, DocumentView, Pages, Retried, State

#: By format.
_MEDIA_TYPES = {"md": "text/markdown; charset=utf-8", "json": "application/json"}
#: Seconds for which a link to a result is good.
_LINK_SECONDS = 300
_CHUNK = 1 << 18

router = APIRouter(
    prefix="/v1/documents",
    tags=["documents"],
    dependencies=[Depends(user)],
    responses=described(
        HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE
    ),
)
_FOUND = described(HTTPStatus.NOT_FOUND)
_CONFLICT = described(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)

Id = Annotated[str, Path(description="The document's id: 32 digits of 0-9 and a-f.")]
PageNumber = Annotated[int, Path(ge=1, le=999_999)]
#: The others are states of a source, and of none that is listed here.
Listed = Literal[State.WAITING, State.ACTIVE, State.COMPLETED, State.PARTIAL, State.FAILED, State.CANCELLED]


class Asked(BaseModel):
    """Which documents somebody wants listed."""

    model_config = ConfigDict(extra="forbid")

    collection: Collection | None = None
    status: Listed | None = Field(default=None, description="Where it is, or how it ended last.")
    day: str | None = Field(default=None, pattern=r"^\d{8}$", description="When it was registered (UTC), as 20261122.")
    cursor: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9._/-]{1,400}$", description="The `next` of the answer before."
    )
    limit: int = Field(default=100, ge=1, le=1000)


@router.get("", operation_id="list_documents", response_model=Documents)
def list_documents(given: Given, asked: Annotated[Asked, Query()]) -> Documents:
    """List documents of a collection, in a status, registered on a day, or several of these: one must be named.

    There may be more, even behind an empty list, as long as there is a `next`.
    """
    return given.registry.documents(
        collection=asked.collection, state=asked.status, day=asked.day, after=asked.cursor, limit=asked.limit
    )


@router.get("/{document}", operation_id="get_document", response_model=DocumentView, responses=_FOUND)
def get_document(given: Given, document: Id) -> DocumentView:
    """Return all that is known of a document: its status, how far it is, which pages failed and why, its outputs."""
    return given.registry.view(document)


@router.get("/{document}/pages", operation_id="list_pages", response_model=Pages, responses=_FOUND)
def list_pages(
    given: Given,
    document: Id,
    after: Annotated[int, Query(ge=0, le=999_999)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Pages:
    """List how a document's pages are, in order, those behind page `after`."""
    return given.registry.pages(document, after=after, limit=limit)


@router.get("/{document}/pages/{page}", operation_id="get_page", response_model=PageResult, responses=_FOUND)
def get_page(given: Given, document: Id, page: PageNumber) -> PageResult:
    """Return what became of a page: its text and layout, or why there is none."""
    return given.registry.page(document, page)


@router.get(
    "/{document}/result",
    operation_id="get_result",
    response_class=Response,
    responses={
        200: {
            "content": {
                "text/markdown; charset=utf-8": {"schema": {"type": "string"}},
                "application/json": {"schema": {"type": "object"}},
            }
        },
        304: {"description": "It is what the client has (If-None-Match)."},
        307: {"description": "It is at the address in Location, for some minutes."},
        **_CONFLICT,
    },
)
def get_result(
    request: Request,
    given: Given,
    document: Id,
    extension: Annotated[Format, Query(alias="format", description="Which output.")] = "md",
) -> Response:
    """Fetch an output, or be redirected to where it can be fetched."""
    output = given.registry.ended(document).outputs.get(extension)
    if output is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            f"There is no such output of this document: GET /v1/documents/{document} says which are.",
        )
    names = given.registry.view(document).names
    latest = max(names, key=lambda name: name.submitted, default=None)
    filename = f"{latest.name.rpartition('/')[2] or document if latest is not None else document}.{extension}"
    url = given.store.presigned(
        output.key, seconds=_LINK_SECONDS, filename=filename, content_type=_MEDIA_TYPES[extension]
    )
    if url is not None:
        return RedirectResponse(url, headers={"Cache-Control": "no-store"})
    headers = {"ETag": f'"{output.sha256}"', "Cache-Control": "private, no-cache"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    try:
        stream = given.store.open(output.key)
    except NotFoundError as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, "The output was removed from the object store.") from error
    return StreamingResponse(
        _pieces(stream),
        media_type=_MEDIA_TYPES[extension],
        headers={
            **headers,
            "Content-Length": str(output.size),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
        },
    )


@router.post(
    "/{document}/retry", operation_id="retry_document", status_code=202, response_model=Retried, responses=_CONFLICT
)
def retry_document(given: Given, document: Id) -> Retried:
    """Have the pages tried again that are not done. With 409 there are none, or not yet."""
    retried = given.registry.retry(document)
    if not retried.opened:
        raise ProblemError(HTTPStatus.CONFLICT, "All of its pages are done: there is nothing to be tried again.")
    return retried


@router.post("/{document}/cancel", operation_id="cancel_document", response_model=DocumentView, responses=_CONFLICT)
def cancel_document(given: Given, document: Id) -> DocumentView:
    """End a document as it is. Pages that were read stay; `retry` goes on with the others."""
    given.registry.cancel(document)
    return given.registry.view(document)


@router.delete("/{document}", operation_id="delete_document", status_code=204, responses=_FOUND)
def delete_document(given: Given, document: Id) -> None:
    """Forget a document with all that is stored of it, but not its source, nor what was delivered elsewhere."""
    given.registry.delete(document)


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    with closing(stream):
        while piece := stream.read(_CHUNK):
            yield piece
