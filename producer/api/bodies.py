"""Bodies of requests: files onto the disk piece by piece, small ones into memory, none beyond its limit."""

from __future__ import annotations

import asyncio
import tempfile
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

#: Seconds between two pieces of a body at most.
_PATIENCE = 60.0
#: Bytes that are written at once.
_PIECE = 1 << 20
#: What a form may have beside its file: fields, bytes of each, and bytes of all that is around them.
_MOST_FIELDS, _LONGEST_FIELD, _AROUND = 32, 1 << 14, 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was sent to us: on the disk, without a name there, so that nothing is left of it when we die."""

    file: BinaryIO
    #: as its sender calls it
    name: str | None = None

    @property
    def path(self) -> Path:
        """By which the file can be opened anew, as long as it is open."""
        return Path(f"/dev/fd/{self.file.fileno()}")


async def raw(request: Request, *, limit: int) -> Upload:
    """Receive a body that is a file. Raises ProblemError."""
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
    """Receive a form with one file and some fields, those in `_SEVERAL` as lists. Raises ProblemError."""
    parser = MultiPartParser(
        request.headers,
        _limited(request, limit, around=_AROUND),
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
        raise ProblemError(HTTPStatus.BAD_REQUEST, "The form has no file: send one as its part `file`.")
    if (uploaded.size or 0) > limit:
        await data.close()
        raise _too_large(limit)
    # A small one is still in memory, where it has no path.
    await run_in_threadpool(cast("tempfile.SpooledTemporaryFile[bytes]", uploaded.file).rollover)
    return Upload(uploaded.file, uploaded.filename), _fields(data)


async def small(request: Request, *, limit: int) -> bytes:
    """Receive a body that is kept in memory. Raises ProblemError."""
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


async def _limited(request: Request, limit: int, *, around: int = 0) -> AsyncGenerator[bytes, None]:
    """Yield a body's pieces until they are more than the limit, or too long in coming."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit + around:
        raise _too_large(limit)
    received = 0
    pieces = request.stream()
    while True:
        try:
            async with asyncio.timeout(_PATIENCE):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise ProblemError(
                HTTPStatus.REQUEST_TIMEOUT, f"Nothing came for {_PATIENCE:g} seconds: send it again."
            ) from None
        if piece is None:
            return
        received += len(piece)
        if received > limit + around:
            raise _too_large(limit)
        yield piece


def _too_large(limit: int) -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than {limit} bytes: split the file, or put it into a bucket and name it as `source`.",
        # What was not read of it can't be told from the next request.
        headers={"Connection": "close"},
    )
