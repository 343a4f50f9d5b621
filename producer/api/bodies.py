"""Request bodies: files are received onto the disk, small bodies into memory, none beyond its limit."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from producer.api.problems import ProblemError

if TYPE_CHECKING:
    from starlette.datastructures import FormData
    from starlette.requests import Request

#: Seconds between two chunks of a body at most.
_CHUNK_TIMEOUT = 60.0
#: Bytes a second that a client sends at least, on average, after so many seconds of waiting for it: 256 kbit/s.
_SLOWEST, _GRACE = 32_000, 30.0
#: Bytes that are written at once.
_PIECE = 1 << 20
#: Limits of a form beside its file: fields, bytes of each field, and bytes of multipart headers and boundaries.
_MOST_FIELDS, _LONGEST_FIELD, _OVERHEAD = 32, 1 << 14, 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file on the disk, without a name: the system removes it when the process ends."""

    file: BinaryIO
    #: file name that the client gave
    name: str | None = None

    @property
    def path(self) -> Path:
        """Path by which the file can be opened again while it is open."""
        return Path(f"/dev/fd/{self.file.fileno()}")


async def raw(request: Request, *, limit: int) -> Upload:
    """Receive a file as the whole body. Raises ProblemError."""
    file = await run_in_threadpool(tempfile.TemporaryFile)
    try:
        piece = bytearray()
        async for chunk in _limited(request, limit):
            piece += chunk
            if len(piece) >= _PIECE:
                await run_in_threadpool(file.write, piece)
                piece = bytearray()
        await run_in_threadpool(_finish, file, piece)
    except BaseException:
        file.close()
        raise
    return Upload(cast("BinaryIO", file))


async def form(request: Request, *, limit: int) -> tuple[Upload, dict[str, Any]]:
    """Receive a form with one file and fields; those in `_SEVERAL` become lists. Raises ProblemError."""
    parser = MultiPartParser(
        request.headers,
        _limited(request, limit, overhead=_OVERHEAD),
        max_files=1,
        max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )
    try:
        data = await parser.parse()
    except MultiPartException as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"The form can't be read: {error.message}") from error
    uploaded = data.get("file")
    if not isinstance(uploaded, UploadFile):
        await data.close()
        raise ProblemError(HTTPStatus.BAD_REQUEST, "The form has no file: send it as the part `file`.")
    if (uploaded.size or 0) > limit:
        await data.close()
        raise _too_large(limit)
    # A small file is still in memory, where it has no path.
    await run_in_threadpool(cast("tempfile.SpooledTemporaryFile[bytes]", uploaded.file).rollover)
    return Upload(uploaded.file, uploaded.filename), _fields(data)


async def small(request: Request, *, limit: int) -> bytes:
    """Receive a body into memory. Raises ProblemError."""
    body = bytearray()
    async for chunk in _limited(request, limit):
        body += chunk
    return bytes(body)


_SEVERAL = {"formats"}


def _fields(data: FormData) -> dict[str, Any]:
    fields = {name: value for name, value in data.multi_items() if isinstance(value, str)}
    return {name: data.getlist(name) if name in _SEVERAL else value for name, value in fields.items()}


def _finish(file: Any, rest: bytearray) -> None:
    file.write(rest)
    file.flush()


async def _limited(request: Request, limit: int, *, overhead: int = 0) -> AsyncGenerator[bytes, None]:
    """Yield a body's chunks. Raises ProblemError when they exceed the limit or come too slowly."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit + overhead:
        raise _too_large(limit)
    received, waited = 0, 0.0
    pieces = request.stream()
    while True:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(_CHUNK_TIMEOUT):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise ProblemError(
                HTTPStatus.REQUEST_TIMEOUT, f"No data arrived for {_CHUNK_TIMEOUT:g} seconds: send the request again."
            ) from None
        if piece is None:
            return
        waited += time.monotonic() - begun
        received += len(piece)
        if waited > _GRACE and received < _SLOWEST * waited:
            raise ProblemError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"The body arrives at less than {_SLOWEST} bytes a second: send it over a faster connection, or put it into a "
                "bucket and name it as `source`.",
                headers={"Connection": "close"},
            )
        if received > limit + overhead:
            raise _too_large(limit)
        yield piece


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than {limit} bytes: split the file, or put it into a bucket and name it as `source`.",
        # The rest of the body can't be distinguished from the next request.
        headers={"Connection": "close"},
    )
