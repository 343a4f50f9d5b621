"""Progress of a document as server-sent events: `GET /v1/documents/{id}/events`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

from ocrfleet.errors import NotFoundError, TransientError
from producer.api.auth import Reader
from producer.api.dependencies import Context
from producer.api.problems import described
from producer.documents.views import OPEN, DocumentView, State

#: Seconds between two reads of the document.
_POLL_SECONDS = 1.0

router = APIRouter(prefix="/v1/documents", tags=["documents"])


class DocumentProgress(BaseModel):
    """Progress of a document, or how it ended."""

    state: State
    generation: int
    total: int
    done: int
    failed: int

    @classmethod
    def of(cls, view: DocumentView) -> DocumentProgress:
        return cls(state=view.state, generation=view.generation, total=view.total, done=view.done, failed=view.failed)


def _slot(context: Context, caller: Reader) -> Iterator[None]:
    """Hold a slot for streams until the stream has ended. Raises ProblemError."""
    with context.streams.taken(caller.client):
        yield


def _first(document: str, context: Context, caller: Reader) -> DocumentView:
    """Read the document before the stream begins: afterwards a 404 is no longer possible."""
    return context.documents.view(document, tenant=caller.tenant)


@router.get(
    "/{document}/events",
    operation_id="follow_document",
    response_class=EventSourceResponse,
    dependencies=[Depends(_slot)],
    responses=described(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def follow_document(
    document: str, context: Context, caller: Reader, first: Annotated[DocumentView, Depends(_first)]
) -> AsyncIterator[ServerSentEvent]:
    """Send the event `progress` when the numbers change, and `ended` at the end; the data are the numbers as JSON."""
    shown = None
    progress = DocumentProgress.of(first)
    while True:
        if progress.state not in OPEN:
            yield ServerSentEvent(event="ended", data=progress)
            return
        if progress != shown:
            yield ServerSentEvent(event="progress", data=progress)
            shown = progress
        await asyncio.sleep(_POLL_SECONDS)
        if context.stopping.is_set():
            return  # the client reconnects, to another server or after the restart
        try:
            read = functools.partial(context.documents.view, document, tenant=caller.tenant)
            progress = DocumentProgress.of(await run_sync(read, limiter=context.polling))
        except NotFoundError:
            progress = progress.model_copy(update={"state": State.DELETED})
        except TransientError:
            continue
