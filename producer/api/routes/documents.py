"""Documents over HTTP: list and read them, fetch results, retry, cancel, delete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from ocrfleet.errors import NotFoundError
from ocrfleet.formats import FORMATS, FormatName
from ocrfleet.records.base import Collection
from ocrfleet.records.pages import PageResult
from producer.api.auth import Deleting, Reader, Retrying, Submitting
from producer.api.dependencies import ApiContext, Context
from producer.api.problems import ProblemError, described
from producer.documents.views import Documents, DocumentView, Pages, Retried, State

#: Seconds for which a presigned URL of a result is valid.
_LINK_SECONDS = 300
#: Seconds after which a client asks again for an output that is being made.
_RETRY_SECONDS = 5
_CHUNK = 1 << 18

if TYPE_CHECKING:
    from ocrfleet.records.documents import Output
    from ocrfleet.storage.outputs import Outputs


class PendingResult(BaseModel):
    """An output that is being made."""

    state: Literal["converting"] = "converting"


def _schema(media_type: str) -> dict[str, str]:
    """Return the schema of an output: JSON is an object, everything else is characters or bytes."""
    subtype = media_type.partition(";")[0].partition("/")[2]
    return {"type": "object" if subtype == "json" or subtype.endswith("+json") else "string"}


router = APIRouter(
    prefix="/v1/documents",
    tags=["documents"],
    responses=described(
        HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE
    ),
)
_FOUND = described(HTTPStatus.NOT_FOUND)
_CONFLICT = described(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)

Id = Annotated[str, Path(description="The document's id: 32 digits of 0-9 and a-f.")]
PageNumber = Annotated[int, Path(ge=1, le=999_999)]
#: The other states are those of sources, which are not listed here.
Listed = Literal[State.WAITING, State.ACTIVE, State.COMPLETED, State.PARTIAL, State.FAILED, State.CANCELLED]


class ListingQuery(BaseModel):
    """Query of a listing."""

    model_config = ConfigDict(extra="forbid")

    collection: Collection | None = None
    status: Listed | None = Field(default=None, description="State of the document.")
    day: str | None = Field(default=None, pattern=r"^\d{8}$", description="Day of registration (UTC), as 20261122.")
    review: bool | None = Field(
        default=None, description="Only documents that have pages for a person to look at; or, false, that have none."
    )
    cursor: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9._~/-]{1,400}$", description="The `next` of the previous response."
    )
    limit: int = Field(default=100, ge=1, le=1000)


@router.get("", operation_id="list_documents", response_model=Documents)
def list_documents(context: Context, caller: Reader, query: Annotated[ListingQuery, Query()]) -> Documents:
    """List documents by collection, status, day of registration, or several of these; at least one is required.

    While the response has a `next`, there may be more documents, even after an empty list.
    """
    return context.documents.documents(
        collection=query.collection,
        state=query.status,
        day=query.day,
        review=query.review,
        after=query.cursor,
        limit=query.limit,
        tenant=caller.tenant,
    )


@router.get("/{document}", operation_id="get_document", response_model=DocumentView, responses=_FOUND)
def get_document(context: Context, caller: Reader, document: Id) -> DocumentView:
    """Return a document: its state, its progress, the pages that failed with their reasons, its outputs."""
    return context.documents.view(document, tenant=caller.tenant)


@router.get("/{document}/pages", operation_id="list_pages", response_model=Pages, responses=_FOUND)
def list_pages(
    context: Context,
    caller: Reader,
    document: Id,
    *,
    after: Annotated[int, Query(ge=0, le=999_999)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    review: Annotated[
        bool | None, Query(description="Only pages that a person should look at; or, false, only the others.")
    ] = None,
) -> Pages:
    """List the states of a document's pages in order, from the page after `after` on."""
    return context.documents.pages(document, after=after, limit=limit, review=review, tenant=caller.tenant)


@router.get("/{document}/pages/{page}", operation_id="get_page", response_model=PageResult, responses=_FOUND)
def get_page(context: Context, caller: Reader, document: Id, page: PageNumber) -> PageResult:
    """Return the result of a page: its text and layout, or the reason why it failed."""
    return context.documents.page(document, page, tenant=caller.tenant)


async def _slot(context: Context, caller: Reader) -> AsyncIterator[None]:
    """Hold a slot for waiting requests until the output is sent. Raises ProblemError."""
    with context.waits.taken(caller.client):
        yield


@router.get(
    "/{document}/result",
    operation_id="get_result",
    response_class=Response,
    dependencies=[Depends(_slot)],
    responses={
        200: {"content": {known.media_type: {"schema": _schema(known.media_type)} for known in FORMATS.values()}},
        202: {"model": PendingResult, "description": "The output is being made: ask again after Retry-After seconds."},
        304: {"description": "Not changed since the client fetched it (If-None-Match)."},
        307: {"description": "The output is at the URL in Location, which is valid for some minutes."},
        **_CONFLICT,
        **described(HTTPStatus.TOO_MANY_REQUESTS),
    },
)
async def get_result(
    request: Request,
    context: Context,
    caller: Reader,
    document: Id,
    *,
    name: Annotated[FormatName, Query(alias="format", description="Format of the output.")] = FormatName.MARKDOWN,
    wait: Annotated[
        float,
        Query(ge=0, le=60, description="Seconds to wait for an output that must be made, before the response is 202."),
    ] = 10,
) -> Response:
    """Return an output, or a redirect to where it can be fetched. A format that is not there yet is made of the stored pages.

    409: the document has not ended, or can't be written in this format.
    """
    status = await run_in_threadpool(context.documents.ended, document, tenant=caller.tenant, wanted=name)
    begun = await run_in_threadpool(context.converter.begin, status, [name])
    future = asyncio.wrap_future(begun)
    await asyncio.wait([future], timeout=wait)
    if not future.done():
        future.add_done_callback(_ignore_error)
        return Response(
            PendingResult().model_dump_json(),
            HTTPStatus.ACCEPTED,
            {"Retry-After": str(_RETRY_SECONDS), "Cache-Control": "no-store"},
            "application/json",
        )
    outputs = await future
    if name in outputs.refused:
        raise ProblemError(
            HTTPStatus.CONFLICT, f"The document can't be written in this format: {outputs.refused[name]}."
        )
    output = outputs.made.get(name)
    if output is None:
        raise ProblemError(
            HTTPStatus.NOT_FOUND,
            f"This document has no such output: GET /v1/documents/{document} lists its outputs.",
        )
    view = await run_in_threadpool(context.documents.view, document, tenant=caller.tenant)
    return await run_in_threadpool(_response, request, context, view, name, output)


def _ignore_error(future: asyncio.Future[Outputs]) -> None:
    """Retrieve the error of a conversion without a waiting request: the next request reports it."""
    if not future.cancelled():
        future.exception()


def _response(request: Request, context: ApiContext, view: DocumentView, name: FormatName, output: Output) -> Response:
    latest = max(view.names, key=lambda name: name.submitted, default=None)
    label = latest.name.rpartition("/")[2] or view.id if latest is not None else view.id
    filename = f"{label}.{FORMATS[name].extension}"
    media_type = FORMATS[name].media_type
    url = context.store.presigned(output.key, seconds=_LINK_SECONDS, filename=filename, content_type=media_type)
    if url is not None:
        return RedirectResponse(url, headers={"Cache-Control": "no-store"})
    headers = {"ETag": f'"{output.sha256}"', "Cache-Control": "private, no-cache"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    try:
        stream = context.store.open(output.key)
    except NotFoundError as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, "The output was removed from the object store.") from error
    return StreamingResponse(
        _pieces(stream),
        media_type=media_type,
        headers={
            **headers,
            "Content-Length": str(output.size),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
        },
    )


@router.post(
    "/{document}/retry", operation_id="retry_document", status_code=202, response_model=Retried, responses=_CONFLICT
)
def retry_document(context: Context, caller: Retrying, document: Id) -> Retried:
    """Retry the pages that are not done. 409: there are none, or the document has not ended."""
    retried = context.documents.retry(document, tenant=caller.tenant)
    if not retried.opened:
        raise ProblemError(HTTPStatus.CONFLICT, "All pages of the document are done: there is nothing to retry.")
    return retried


@router.post("/{document}/cancel", operation_id="cancel_document", response_model=DocumentView, responses=_CONFLICT)
def cancel_document(context: Context, caller: Submitting, document: Id) -> DocumentView:
    """Cancel a document. Pages that are done stay; `retry` continues with the others."""
    context.documents.cancel(document, tenant=caller.tenant)
    return context.documents.view(document, tenant=caller.tenant)


@router.delete("/{document}", operation_id="delete_document", status_code=204, responses=_FOUND)
def delete_document(context: Context, caller: Deleting, document: Id) -> None:
    """Delete a document with everything that is stored of it, but not its source, nor delivered results."""
    context.documents.delete(document, tenant=caller.tenant)


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    with closing(stream):
        while piece := stream.read(_CHUNK):
            yield piece
