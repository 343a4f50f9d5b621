"""The object store in a bucket, or below a prefix of one.

S3 never shows an incomplete object. Of several requests that create one, the server's If-None-Match decides. A writer that
is killed during a large upload leaves parts that no listing shows: a lifecycle rule of the bucket
(AbortIncompleteMultipartUpload) removes them. Buckets of S3 Express are not supported: they list in no order.
"""

from __future__ import annotations

import io
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypedDict, cast
from urllib.parse import quote

from botocore.exceptions import ClientError

from ocrfleet.errors import ConfigurationError, NotFoundError, OcrfleetError, TransientError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.s3 import client as s3
from ocrfleet.s3 import reader as s3_reader
from ocrfleet.s3.client import PreconditionFailedError
from ocrfleet.s3.file_part import FilePart
from ocrfleet.s3.location import S3Location
from ocrfleet.storage.store import check_content, is_key

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, GetObjectRequestTypeDef, HeadObjectOutputTypeDef

    from ocrfleet.settings import S3Settings

#: Bytes of a file that are sent in one request; S3 takes parts of 5 MiB or more, 10,000 of them.
PART = 16 << 20
_MOST_PARTS = 10_000
#: Parts in flight at the same time.
_PARALLEL = 4
#: Metadata of created objects: a random token of the request, by which it recognises its own object.
_TOKEN = "ocrfleet-create"  # noqa: S105 - a name, not a secret
#: Seconds of the first and the longest pause after a conflict.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Condition(TypedDict, total=False):
    """Condition on which a request creates an object."""

    IfNoneMatch: str
    IfMatch: str


class _ConflictError(Exception):
    """The server could not decide between two requests: both may be repeated."""


class S3Store:
    """An ObjectStore in S3. Thread-safe.

    A refusal of the server raises ConfigurationError in `check` only, at the start. After that it raises TransientError, with
    the same message: servers that are being restarted, or whose permissions are being changed, refuse requests for a while.
    """

    def __init__(self, settings: S3Settings, bucket: str, prefix: str = "", *, part: int = PART) -> None:
        self._client = s3.client(settings)
        self._settings = settings
        self._bucket = bucket
        folder = prefix.strip("/")
        self._prefix = f"{folder}/" if folder else ""
        self._arguments = s3.write_arguments(settings)
        self._part = part

    def check(self) -> None:
        """Make one request. Raises ConfigurationError for what a person must correct, TransientError when S3 is away."""
        with s3.errors(f"the store {S3Location(self._bucket, self._prefix)}"):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def get(self, key: str) -> bytes:
        with self.open(key) as stream, _waiting():
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        location = self._location(key)
        with _waiting():
            request: GetObjectRequestTypeDef = {"Bucket": location.bucket, "Key": location.key}
            raw = s3_reader.reader(self._client, request, what=self._what(key), attempts=self._settings.attempts)
        if not raw.size:
            raw.close()
            raise NotFoundError(f"{self._what(key)}: its writer died, nothing is in it")
        return io.BufferedReader(raw, s3_reader.CHUNK)

    def exists(self, key: str) -> bool:
        return self._look(key) is not None

    def put(self, key: str, data: bytes) -> None:
        check_content(key, data)
        location = self._location(key)
        with _errors(self._what(key)):
            self._client.put_object(Bucket=location.bucket, Key=location.key, Body=data, **self._arguments)

    def create(self, key: str, data: bytes) -> bool:
        check_content(key, data)
        return self._decided(key, lambda condition, token: self._put_new(key, data, condition, token))

    def create_from(self, key: str, path: Path) -> bool:
        self._location(key)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size <= self._part:
                    return self.create(key, file.read())
                if self.exists(key):
                    return False
                return self._decided(
                    key, lambda condition, token: self._upload_new(key, file.fileno(), size, condition, token)
                )
        except OSError as error:
            raise TransientError(f"the store can't be written ({key}): {error.strerror}") from error

    def delete(self, key: str) -> None:
        location = self._location(key)
        with suppress(NotFoundError), _errors(self._what(key)):
            self._client.delete_object(Bucket=location.bucket, Key=location.key)

    def list(self, prefix: str, *, after: str | None = None) -> Iterator[str]:
        start = {} if after is None else {"StartAfter": self._prefix + after}
        for page in self._pages(prefix, **start):
            for entry in page.get("Contents", ()):
                key = entry["Key"].removeprefix(self._prefix)
                if is_key(key) and entry["Size"]:  # what is no key is not ours, what is empty is no object
                    yield key

    def folders(self, prefix: str) -> Sequence[str]:
        found = (
            entry["Prefix"] for page in self._pages(prefix, Delimiter="/") for entry in page.get("CommonPrefixes", ())
        )
        names = (name.removeprefix(self._prefix + prefix).rstrip("/") for name in found)
        return sorted(name for name in names if is_key(name))

    def presigned(self, key: str, *, seconds: int, filename: str, content_type: str) -> str | None:
        """As ObjectStore says; the URL names OCRFLEET_S3_PUBLIC_ENDPOINT_URL, or else the server that we use ourselves."""
        location = self._location(key)
        parameters = {
            "Bucket": location.bucket,
            "Key": location.key,
            "ResponseContentType": content_type,
            "ResponseContentDisposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
        }
        with _errors(self._what(key)):
            signer = s3.signer(self._settings, self._bucket)
            return signer.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)

    def _pages(self, prefix: str, **arguments: Any) -> Iterator[Any]:
        self._location(prefix.rstrip("/"))
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix, **arguments
            )
        )
        while True:
            with _errors(self._what(prefix)):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def _decided(self, key: str, attempt: Callable[[Condition, str], None]) -> bool:
        """Make an object unless there is one, and say whether it is ours.

        An answer may get lost after the object was made, and the client's own repetition is refused then: the token tells
        whose object that is. An empty one is replaced, by one of those who find it.
        """
        token = uuid.uuid4().hex
        condition: Condition = {"IfNoneMatch": "*"}
        for number in range(self._settings.attempts):
            try:
                with _errors(self._what(key)):
                    attempt(condition, token)
            except (
                PreconditionFailedError,
                NotFoundError,
            ):  # not found: the empty object that was to be replaced is gone
                head = self._head(key)
                if head is not None and head["ContentLength"]:
                    return _token(head) == token
                condition = {"IfNoneMatch": "*"} if head is None else {"IfMatch": head["ETag"]}
            except _ConflictError:
                time.sleep(random.uniform(0, min(_FIRST_PAUSE * 2**number, _LONGEST_PAUSE)))  # noqa: S311 - a pause
            else:
                return True
        raise TransientError(f"{self._what(key)}: others write it all the time; to be tried again")

    def _put_new(self, key: str, data: bytes, condition: Condition, token: str) -> None:
        location = self._location(key)
        with _conflicts():
            self._client.put_object(
                Bucket=location.bucket,
                Key=location.key,
                Body=data,
                Metadata={_TOKEN: token},
                **condition,
                **self._arguments,
            )

    def _upload_new(self, key: str, file: int, size: int, condition: Condition, token: str) -> None:
        """Send a file in parts. What decides is the last request, which makes an object of them.

        AWS decides it as it decides small ones. SeaweedFS only looks before it makes the object, so that of two at once both
        may win, and the later one stands: harmless, as large files go to names of their content.
        """
        location = self._location(key)
        upload = self._client.create_multipart_upload(
            Bucket=location.bucket, Key=location.key, Metadata={_TOKEN: token}, **self._arguments
        )["UploadId"]
        try:
            parts = self._send_parts(location, upload, file, size)
            with _conflicts():
                self._client.complete_multipart_upload(
                    Bucket=location.bucket,
                    Key=location.key,
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                    **condition,
                )
        except self._client.exceptions.NoSuchUpload:
            # The response to a repeated request whose first response was lost; or another process ended the upload.
            if self._look(key) != token:
                raise
        except BaseException:
            with suppress(OcrfleetError), _errors(self._what(key)):
                self._client.abort_multipart_upload(Bucket=location.bucket, Key=location.key, UploadId=upload)
            raise

    def _send_parts(self, location: S3Location, upload: str, file: int, size: int) -> Sequence[CompletedPartTypeDef]:
        length = max(self._part, -(-size // _MOST_PARTS))

        def send(number: int) -> CompletedPartTypeDef:
            part = cast("IO[bytes]", FilePart(file, (number - 1) * length, length))
            answer = self._client.upload_part(
                Bucket=location.bucket, Key=location.key, UploadId=upload, PartNumber=number, Body=part
            )
            return {"PartNumber": number, "ETag": answer["ETag"]}

        threads = ThreadPoolExecutor(_PARALLEL)
        try:
            return list(threads.map(send, range(1, -(-size // length) + 1)))
        finally:
            threads.shutdown(cancel_futures=True)

    def _look(self, key: str) -> str | None:
        """Return the token that an object was created with, "" where it has none, None where there is no object."""
        head = self._head(key)
        return _token(head) if head is not None and head["ContentLength"] else None

    def _head(self, key: str) -> HeadObjectOutputTypeDef | None:
        location = self._location(key)
        try:
            with _errors(self._what(key)):
                return self._client.head_object(Bucket=location.bucket, Key=location.key)
        except NotFoundError:
            return None

    def _location(self, key: str) -> S3Location:
        if not is_key(key):
            raise ValueError(f"not a key: {key!r}")
        return S3Location(self._bucket, self._prefix + key)

    def _what(self, key: str) -> str:
        return f"the store's object {S3Location(self._bucket, self._prefix + key)}"


def _token(head: HeadObjectOutputTypeDef) -> str:
    return head["Metadata"].get(_TOKEN, "")


@contextmanager
def _errors(what: str) -> Iterator[None]:
    with _waiting(), s3.errors(what):
        yield


@contextmanager
def _waiting() -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        metrics.STORE_ERRORS.inc()
        raise TransientError(str(error)) from error
    except TransientError:
        metrics.STORE_ERRORS.inc()
        raise


@contextmanager
def _conflicts() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"ConditionalRequestConflict", "OperationAborted"}:
            raise _ConflictError from error
        raise
