"""Submissions over HTTP: `POST /v1/documents`, and `GET /v1/submissions/{id}` for sources that wait for intake."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Path, Query
from pydantic import BaseModel, Field
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ocrfleet.records.base import digest_of
from producer.api.auth import Caller, Following, Submitting
from producer.api.bodies import Upload, form, raw, small
from producer.api.dependencies import ApiContext, Context
from producer.api.idempotency import StoredResponse
from producer.api.problems import ProblemError, described
from producer.api.submitter import SourceRequest, SubmissionRequest, merged
from producer.documents.views import DocumentView

#: Bytes of a JSON body at most.
_LARGEST_JSON = 1 << 16
#: Seconds between two reads of an intake outcome.
_POLL_SECONDS = 0.5

router = APIRouter(prefix="/v1", tags=["documents"])


class SubmissionQuery(SubmissionRequest):
    """Options in the query."""

    wait: float = Field(
        default=10,
        ge=0,
        le=60,
        description="Seconds to wait for the intake of a source in S3 before the response is 202.",
    )


class PendingSubmission(BaseModel):
    """A source that is stored and waits for intake."""

    state: Literal["arriving"] = "arriving"
    #: its id below /v1/submissions/
    submission: str


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema for OpenAPI; the schemas that it refers to are there already, from the query."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


_FILE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    **_schema(SubmissionRequest)["properties"],
                },
            }
        },
        "application/json": {"schema": _schema(SourceRequest)},
        "application/pdf": _FILE,
        "image/*": _FILE,
    },
}


async def _slot(context: Context, caller: Submitting) -> AsyncIterator[None]:
    """Hold a slot for waiting requests until the response is sent. Raises ProblemError."""
    with context.waits.taken(caller.client):
        yield


@router.post(
    "/documents",
    operation_id="submit_document",
    dependencies=[Depends(_slot)],
    status_code=201,
    response_model=DocumentView,
    openapi_extra={"requestBody": _BODY},
    responses={
        202: {"model": PendingSubmission, "description": "Stored; follow it at the URL in Location."},
        **described(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
)
async def submit_document(
    request: Request,
    context: Context,
    caller: Submitting,
    options: Annotated[SubmissionQuery, Query()],
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="The same request with the same key, within 24 hours, gets the same response.",
        ),
    ] = None,
) -> Response:
    """Submit a document: a file as the body or as `file` of a form, or JSON that names a `source` in S3.

    Options are in the query, or beside the file or the source. A file is registered before the response, 201. A source in
    S3 is read by the fleet's intake: 201 when that ends within `wait` seconds, else 202 and the URL to follow it. The same
    bytes with the same profile and pages are the same document.
    """
    await run_in_threadpool(context.submitter.check_room, caller.client)
    given = options.model_dump(exclude_unset=True, exclude={"wait"})
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    limit = context.settings.api.upload_bytes
    declared = request.headers.get("content-length", "")
    await run_in_threadpool(
        context.submitter.quotas.check, caller.client, int(declared[:18]) if declared.isdecimal() else 0
    )
    if media == "application/json":
        body = _object(await small(request, limit=_LARGEST_JSON))
        response = await _submit_source(
            context, caller, merged(SourceRequest, given, body), idempotency_key, wait=options.wait
        )
    elif media == "multipart/form-data":
        with context.uploads.taken(caller.client):
            upload, fields = await form(request, limit=limit)
            response = await _submit_file(context, caller, upload, given | fields, idempotency_key)
    elif media == "application/pdf" or media.startswith("image/"):
        with context.uploads.taken(caller.client):
            response = await _submit_file(context, caller, await raw(request, limit=limit), given, idempotency_key)
    else:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send a file (multipart/form-data, application/pdf or image/…) or application/json with a source.",
        )
    return Response(response.body, response.status, {"Location": response.location}, "application/json")


@router.get(
    "/submissions/{submission}",
    operation_id="follow_submission",
    response_model=PendingSubmission,
    responses={
        303: {"description": "The source has become the document in Location."},
        **described(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.GONE,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
)
def follow_submission(
    context: Context,
    caller: Following,
    submission: Annotated[str, Path(pattern=r"^\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{32}$")],
) -> Any:
    """Return whether a source waits for intake, or redirect to the document that it has become. Known for a week."""
    document = context.submitter.followed(submission, tenant=caller.tenant)
    if document is None:
        return PendingSubmission(submission=submission)
    return RedirectResponse(_path(document), status_code=HTTPStatus.SEE_OTHER)


async def _submit_file(
    context: ApiContext, caller: Caller, upload: Upload, given: dict[str, Any], key: str | None
) -> StoredResponse:
    """Register a file, or return the stored response to the same request."""

    def take() -> StoredResponse:
        wanted: SubmissionRequest = merged(SubmissionRequest, given)
        source = context.submitter.inspect(upload, client=caller.client)
        fingerprint = digest_of(source.sha256, upload.name or "", wanted.fingerprint)
        stored = context.responses.find(caller.id, key, fingerprint) if key is not None else None
        if stored is not None:
            return stored
        document = context.submitter.register(upload, source, wanted, caller=caller)
        return _stored(context, caller, key, _created(context, caller, document, fingerprint))

    try:
        return await run_in_threadpool(take)
    finally:
        upload.file.close()


async def _submit_source(
    context: ApiContext, caller: Caller, wanted: SourceRequest, key: str | None, *, wait: float
) -> StoredResponse:
    """Store a source for intake and wait for that, or return the stored response to the same request."""
    fingerprint = digest_of("source", wanted.fingerprint)
    if key is not None:
        stored = await run_in_threadpool(context.responses.find, caller.id, key, fingerprint)
        if stored is not None:
            return stored
    submission = await run_in_threadpool(context.submitter.add_source, wanted, caller=caller)
    document = await _waited(context, caller, submission, wait)
    if document is not None:
        response = await run_in_threadpool(_created, context, caller, document, fingerprint)
    else:
        response = StoredResponse(
            fingerprint=fingerprint,
            answered=datetime.now(UTC),
            status=HTTPStatus.ACCEPTED,
            location=f"/v1/submissions/{submission}",
            body=PendingSubmission(submission=submission).model_dump_json(),
        )
    return await run_in_threadpool(_stored, context, caller, key, response)


async def _waited(context: ApiContext, caller: Caller, submission: str, seconds: float) -> str | None:
    """Return the document that a source becomes within so many seconds; None when it does not."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not context.stopping.is_set():
        await asyncio.sleep(min(_POLL_SECONDS, left))
        try:
            follow = functools.partial(context.submitter.followed, submission, tenant=caller.tenant)
            document = await run_sync(follow, limiter=context.polling)
        except ProblemError:
            return None  # the client gets the reason when it follows the submission
        if document is not None:
            return document
    return None


def _created(context: ApiContext, caller: Caller, document: str, fingerprint: str) -> StoredResponse:
    return StoredResponse(
        fingerprint=fingerprint,
        answered=datetime.now(UTC),
        status=HTTPStatus.CREATED,
        location=_path(document),
        body=context.documents.view(document, tenant=caller.tenant).model_dump_json(),
    )


def _stored(context: ApiContext, caller: Caller, key: str | None, response: StoredResponse) -> StoredResponse:
    return response if key is None else context.responses.store(caller.id, key, response)


def _path(document: str) -> str:
    return f"/v1/documents/{document}"


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ProblemError(HTTPStatus.BAD_REQUEST, 'The body must be a JSON object, as {"source": "s3://bucket/key"}.')
    return value
