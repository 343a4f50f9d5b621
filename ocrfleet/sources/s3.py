"""Sources in S3: looked at and read, never written to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError, ParamValidationError

from ocrfleet.errors import ConfigurationError, NotFoundError, PermanentError, Reason
from ocrfleet.s3 import client as s3
from ocrfleet.s3 import reader as s3_reader
from ocrfleet.s3.client import PreconditionFailedError

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, GetObjectRequestTypeDef, HeadObjectOutputTypeDef

    from ocrfleet.s3.reader import Reader
    from ocrfleet.settings import S3Settings

#: Refusals that are not about one object: a person must correct how S3 is reached at all.
_NOT_OF_THE_OBJECT = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "NotSignedUp", "AccountProblem"),
    *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed", "NotImplemented"),
    *("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
}
_GONE = "the source is gone; put it back and run again"
_BAD_REQUEST = 400
_FORBIDDEN = 403
_SERVER_ERROR = 500
#: What it means for one object, by the code or else by the status.
_OF_THE_OBJECT: dict[str | int, str] = {
    "NoSuchBucket": "the source's bucket is gone; put it back and run again",
    "InvalidObjectState": "the source is archived: restore it in S3, then run again",
    _FORBIDDEN: "reading the source is not permitted: whoever the credentials belong to needs s3:GetObject on it (and "
    "s3:GetObjectVersion, s3:ListBucket on its bucket, kms:Decrypt where that encrypts it); then run again",
    405: _GONE,  # of a version that is a delete marker
}


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """An object, if need be only in one version or with one ETag (without quotation marks)."""

    uri: str
    etag: str | None = None
    version: str | None = None

    def request(self) -> GetObjectRequestTypeDef:
        """Return the arguments of a GET or HEAD for it. Raises PermanentError for what can't be an object's URI."""
        try:
            location = s3.parse(self.uri)
        except ValueError as error:
            raise PermanentError(Reason.SOURCE_MISSING, "the source has no URI of S3: s3://bucket/key") from error
        request: GetObjectRequestTypeDef = {"Bucket": location.bucket, "Key": location.key}
        if self.etag is not None:
            request["IfMatch"] = f'"{self.etag}"'
        if self.version is not None:
            request["VersionId"] = self.version
        return request


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the server says of an object."""

    size: int
    etag: str
    version: str | None
    #: that whoever wrote it gave it
    metadata: Mapping[str, str]


class S3Sources:
    """Looks at sources in S3 and opens them.

    Each call may raise PermanentError for what is wrong with the source itself, TransientError when S3 is away, and
    ConfigurationError for what a person must change first.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings

    def info(self, reference: ObjectReference) -> ObjectInfo:
        """Ask for an object's size, ETag and version."""
        with _about(reference):
            answer = self._head(reference.request())
        return ObjectInfo(
            size=answer["ContentLength"],
            etag=answer["ETag"].strip('"'),
            version=answer.get("VersionId"),
            metadata=answer["Metadata"],
        )

    def _head(self, request: GetObjectRequestTypeDef) -> HeadObjectOutputTypeDef | GetObjectOutputTypeDef:
        client = s3.client(self._settings)
        try:
            return client.head_object(**request)
        except ClientError as error:
            if _status(error) not in {_BAD_REQUEST, _FORBIDDEN}:
                raise
        # An answer to HEAD has no body: whether the key pair is refused or the object, GET says.
        answer = client.get_object(**request)
        answer["Body"].close()
        return answer

    @contextmanager
    def reading(self, reference: ObjectReference) -> Iterator[Reader]:
        """Open an object to be read while the block runs; a broken connection is no end."""
        client = s3.client(self._settings)
        request = reference.request()
        with (
            _about(reference),
            s3_reader.reader(client, request, what=_what(reference), attempts=self._settings.attempts) as reader,
        ):
            yield reader


@contextmanager
def _about(reference: ObjectReference) -> Iterator[None]:
    """Tell what is wrong with one source from what is wrong with S3.

    What is wrong with a source enters outputs: its words don't change from one try to the next.
    """
    try:
        with s3.errors(_what(reference)):
            yield
    except NotFoundError as error:
        raise gone() from error
    except PreconditionFailedError as error:
        raise changed() from error
    except ConfigurationError as error:
        detail = _refusal(error.__cause__)
        if detail is None:
            raise
        raise PermanentError(Reason.SOURCE_MISSING, detail) from error


def _what(reference: ObjectReference) -> str:
    return f"the source {reference.uri}"


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _refusal(error: BaseException | None) -> str | None:
    """Say why a server won't give this object, and what to do; None where that is not the object's fault."""
    if isinstance(error, ParamValidationError):
        return "the source's bucket or key has a name that S3 doesn't know: correct it"
    if not isinstance(error, ClientError):
        return None
    code, status = error.response["Error"]["Code"], _status(error)
    if code in _NOT_OF_THE_OBJECT or not _BAD_REQUEST <= status < _SERVER_ERROR:
        return None
    other = f"the server won't give the source ({status} {code}): see whether it can be read at all"
    return _OF_THE_OBJECT.get(code) or _OF_THE_OBJECT.get(status) or other


def gone() -> PermanentError:
    return PermanentError(Reason.SOURCE_MISSING, _GONE)


def changed() -> PermanentError:
    return PermanentError(
        Reason.SOURCE_CHANGED, "the source changed after it was registered; run again to have the new one read"
    )
