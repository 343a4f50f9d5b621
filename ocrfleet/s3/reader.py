"""Read an object of S3 as a stream that resumes after broken connections."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from ocrfleet.errors import ConfigurationError, TransientError
from ocrfleet.s3 import client as s3

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, GetObjectRequestTypeDef

    from ocrfleet.s3.location import S3Location

#: Bytes of one read.
CHUNK = 1 << 20


def opened(
    client: S3Client,
    location: S3Location,
    *,
    what: str,
    attempts: int,
    etag: str | None = None,
    version: str | None = None,
) -> io.BufferedReader:
    """Open an object for reading, optionally in one version or with one ETag.

    When the connection breaks, the stream resumes at its position. After `attempts` in a row without data, reading raises
    TransientError, as it does when the object was replaced meanwhile. Raises what `s3.errors(what)` raises, and
    PreconditionFailedError when the ETag differs.
    """
    request: GetObjectRequestTypeDef = {"Bucket": location.bucket, "Key": location.key}
    if etag is not None:
        request["IfMatch"] = etag
    if version is not None:
        request["VersionId"] = version
    return io.BufferedReader(reader(client, request, what=what, attempts=attempts), CHUNK)


def reader(client: S3Client, request: GetObjectRequestTypeDef, *, what: str, attempts: int) -> Reader:
    """Open the object of a GET request, as `opened` does, without a buffer."""
    with s3.errors(what):
        answer = client.get_object(**request)
    return Reader(client, request, answer, what=what, attempts=attempts)


class Reader(io.RawIOBase):
    """The bytes of one response and, where its connection breaks, of responses to requests for the rest."""

    def __init__(
        self,
        client: S3Client,
        request: GetObjectRequestTypeDef,
        answer: GetObjectOutputTypeDef,
        *,
        what: str,
        attempts: int,
    ) -> None:
        super().__init__()
        self._client = client
        #: request for the rest, which must be of the same object
        self._request: GetObjectRequestTypeDef = {**request, "IfMatch": answer["ETag"]}
        self._what = what
        self._attempts = attempts
        self._body = answer["Body"]
        self._position = 0
        self.size = answer["ContentLength"]
        #: user metadata of the object
        self.metadata = answer["Metadata"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._read(CHUNK), b""))

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()

    def _read(self, most: int) -> bytes:
        """Return the next bytes, one at least before the end of the object; reconnects where the connection is broken."""
        wanted = min(most, self.size - self._position)
        if not wanted:
            return b""
        for attempt in range(self._attempts):
            if attempt:
                self._reopen()
            try:
                data = self._body.read(wanted)
            except (BotoCoreError, HTTPError, OSError):
                continue
            if data:
                self._position += len(data)
                return data
        raise TransientError(f"{self._what}: its bytes end at {self._position} of {self.size}; to be tried again")

    def _reopen(self) -> None:
        self._body.close()
        self._request["Range"] = f"bytes={self._position}-"
        try:
            with s3.errors(self._what):
                answer = self._client.get_object(**self._request)
        except s3.PreconditionFailedError as error:
            raise TransientError(f"{self._what}: it was replaced while it was read; to be read again") from error
        except ConfigurationError as error:
            # The request was allowed before.
            raise TransientError(str(error)) from error
        self._body = answer["Body"]
