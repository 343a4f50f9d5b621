"""Progress as server-sent events: `GET /v1/documents/{id}/events`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

from ocrfleet.errors import NotFoundError, TransientError
from producer.api.auth import User, user
from producer.api.dependencies import Given
from producer.api.problems import described
from producer.documents.views import OPEN, DocumentView, State

#: Seconds between two looks at the document.
_LOOK_EVERY = 1.0

router = APIRouter(prefix="/v1/documents", tags=["documents"], dependencies=[Depends(user)])


class Progress(BaseModel):
    """How far a document is, or how it ended."""

    state: State
    generation: int
    total: int
    done: int
    failed: int

    @classmethod
    def of(cls, view: DocumentView) -> Progress:
        return cls(state=view.state, generation=view.generation, total=view.total, done=view.done, failed=view.failed)


def _place(given: Given, _: User) -> Iterator[None]:
    """Have one of the places for streams until the stream has ended. Raises ProblemError."""
    with given.streams.taken():
        yield


def _first(document: str, given: Given) -> DocumentView:
    """Look before the stream begins: afterwards there is no way to say that there is no such document."""
    return given.registry.view(document)


@router.get(
    "/{document}/events",
    operation_id="follow_document",
    response_class=EventSourceResponse,
    dependencies=[Depends(_place)],
    responses=described(
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
)
async def follow_document(
    document: str, given: Given, first: Annotated[DocumentView, Depends(_first)]
) -> AsyncIterator[ServerSentEvent]:
    """Send `progress` whenever the numbers change, and `ended` at the end, each with the numbers as JSON."""
    shown = None
    progress = Progress.of(first)
    while True:
        if progress.state not in OPEN:
            yield ServerSentEvent(event="ended", data=progress)
            return
        if progress != shown:
            yield ServerSentEvent(event="progress", data=progress)
            shown = progress
        await asyncio.sleep(_LOOK_EVERY)
        if given.stopping.is_set():
            return  # the client connects again, to another server or after the restart
        try:
            progress = Progress.of(await run_sync(given.registry.view, document, limiter=given.looking))
        except NotFoundError:
            progress = progress.model_copy(update={"state": State.DELETED})
        except TransientError:
            continue
