"""Submitting documents over HTTP: `POST /v1/documents`, and following those that take a while to be taken in."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Path, Query
from pydantic import BaseModel, Field
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ocrfleet.records.base import digest_of
from producer.api.auth import User
from producer.api.bodies import Upload, form, raw, small
from producer.api.dependencies import Given, Parts
from producer.api.idempotency import Answer
from producer.api.problems import ProblemError, described
from producer.api.submitter import Referred, Wanted, merged
from producer.documents.views import DocumentView

#: Bytes of a body that is JSON.
_LARGEST_JSON = 1 << 16
#: Seconds between two looks at what became of a source.
_LOOK_EVERY = 0.5

router = APIRouter(prefix="/v1", tags=["documents"])


class Options(Wanted):
    """What may stand in the query."""

    wait: float = Field(
        default=10,
        ge=0,
        le=60,
        description="Seconds to wait for a source in S3 to be taken in, before the answer is 202.",
    )


class Submitted(BaseModel):
    """A source that is safely noted, and waits to be taken in."""

    state: Literal["arriving"] = "arriving"
    #: its name below /v1/submissions/
    submission: str


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema, for OpenAPI; what it refers to is there already, by the query's parameters."""
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
                    **_schema(Wanted)["properties"],
                },
            }
        },
        "application/json": {"schema": _schema(Referred)},
        "application/pdf": _FILE,
        "image/*": _FILE,
    },
}


@router.post(
    "/documents",
    operation_id="submit_document",
    status_code=201,
    response_model=DocumentView,
    openapi_extra={"requestBody": _BODY},
    responses={
        202: {"model": Submitted, "description": "Safely noted; Location says where to follow it."},
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
    given: Given,
    user: User,
    options: Annotated[Options, Query()],
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="The same request with the same key, within a day, gets the same answer.",
        ),
    ] = None,
) -> Response:
    """Have a document read: a file as the body or as `file` of a form, or JSON that names a `source` in S3.

    Options stand in the query, or beside the file or the source. A file is registered when this is answered, with 201. A
    source in S3 is taken in by the fleet: 201 when that was done within `wait` seconds, else 202 and where to follow it.
    The same bytes, read in the same way, are the same document.
    """
    await run_in_threadpool(given.submitter.check_room)
    asked = options.model_dump(exclude_unset=True, exclude={"wait"})
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    limit = given.settings.api.upload_bytes
    if media == "application/json":
        body = _object(await small(request, limit=_LARGEST_JSON))
        answer = await _refer(given, user, merged(Referred, asked, body), idempotency_key, wait=options.wait)
    elif media == "multipart/form-data":
        with given.uploads.taken():
            upload, fields = await form(request, limit=limit)
            answer = await _take(given, user, upload, asked | fields, idempotency_key)
    elif media == "application/pdf" or media.startswith("image/"):
        with given.uploads.taken():
            answer = await _take(given, user, await raw(request, limit=limit), asked, idempotency_key)
    else:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send a file (multipart/form-data, application/pdf or image/…) or application/json with a source.",
        )
    return Response(answer.body, answer.status, {"Location": answer.location}, "application/json")


@router.get(
    "/submissions/{submission}",
    operation_id="follow_submission",
    response_model=Submitted,
    responses={
        303: {"description": "It is the document that Location names."},
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
    given: Given,
    _: User,
    submission: Annotated[str, Path(pattern=r"^\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{32}$")],
) -> Any:
    """Say whether a source waits to be taken in, or which document it has become. Known for a week."""
    document = given.submitter.followed(submission)
    if document is None:
        return Submitted(submission=submission)
    return RedirectResponse(_path(document), status_code=HTTPStatus.SEE_OTHER)


async def _take(given: Parts, user: str, upload: Upload, asked: dict[str, Any], key: str | None) -> Answer:
    """Register a file, or find the answer that the same request got."""

    def take() -> Answer:
        wanted: Wanted = merged(Wanted, asked)
        source = given.submitter.look(upload)
        fingerprint = digest_of(source.sha256, upload.name or "", wanted.fingerprint)
        earlier = given.answers.earlier(user, key, fingerprint) if key is not None else None
        if earlier is not None:
            return earlier
        document = given.submitter.take(upload, source, wanted)
        return _noted(given, user, key, _created(given, document, fingerprint))

    try:
        return await run_in_threadpool(take)
    finally:
        upload.file.close()


async def _refer(given: Parts, user: str, wanted: Referred, key: str | None, *, wait: float) -> Answer:
    """Note a source for intake and wait for that, or find the answer that the same request got."""
    fingerprint = digest_of("source", wanted.fingerprint)
    if key is not None:
        earlier = await run_in_threadpool(given.answers.earlier, user, key, fingerprint)
        if earlier is not None:
            return earlier
    submission = await run_in_threadpool(given.submitter.refer, wanted)
    document = await _waited(given, submission, wait)
    if document is not None:
        answer = await run_in_threadpool(_created, given, document, fingerprint)
    else:
        answer = Answer(
            fingerprint=fingerprint,
            answered=datetime.now(UTC),
            status=HTTPStatus.ACCEPTED,
            location=f"/v1/submissions/{submission}",
            body=Submitted(submission=submission).model_dump_json(),
        )
    return await run_in_threadpool(_noted, given, user, key, answer)


async def _waited(given: Parts, submission: str, seconds: float) -> str | None:
    """Return the document that a source has become within some seconds; None when it has not."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not given.stopping.is_set():
        await asyncio.sleep(min(_LOOK_EVERY, left))
        try:
            document = await run_sync(given.submitter.followed, submission, limiter=given.looking)
        except ProblemError:
            return None  # whoever follows it is told why
        if document is not None:
            return document
    return None


def _created(given: Parts, document: str, fingerprint: str) -> Answer:
    return Answer(
        fingerprint=fingerprint,
        answered=datetime.now(UTC),
        status=HTTPStatus.CREATED,
        location=_path(document),
        body=given.registry.view(document).model_dump_json(),
    )


def _noted(given: Parts, user: str, key: str | None, answer: Answer) -> Answer:
    return answer if key is None else given.answers.note(user, key, answer)


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
