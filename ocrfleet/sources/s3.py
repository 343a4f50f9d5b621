"""Sources in S3: inspected and read, never written."""

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
from ocrfleet.sources.reference import GONE, ObjectReference, changed, gone

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, GetObjectRequestTypeDef, HeadObjectOutputTypeDef

    from ocrfleet.s3.reader import Reader
    from ocrfleet.settings import S3Settings

#: Error codes that concern all requests, not one object: a person must correct the configuration of S3.
_NOT_OF_THE_OBJECT = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "NotSignedUp", "AccountProblem"),
    *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed", "NotImplemented"),
    *("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
}
_BAD_REQUEST = 400
_FORBIDDEN = 403
_SERVER_ERROR = 500
#: Message for one object, by the error code or else by the HTTP status.
_OF_THE_OBJECT: dict[str | int, str] = {
    "NoSuchBucket": "the source's bucket is gone; put it back and run again",
    "InvalidObjectState": "the source is archived: restore it in S3, then run again",
    _FORBIDDEN: "reading the source is not permitted: whoever the credentials belong to needs s3:GetObject on it (and "
    "s3:GetObjectVersion, s3:ListBucket on its bucket, kms:Decrypt where that encrypts it); then run again",
    405: GONE,  # of a version that is a delete marker
}


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Size, ETag, version and metadata of an object."""

    size: int
    etag: str
    version: str | None
    #: user metadata
    metadata: Mapping[str, str]


class S3Sources:
    """Inspects and opens sources in S3.

    Each call may raise PermanentError for an error of the source itself, TransientError when S3 is away, and
    ConfigurationError for what a person must correct first.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings

    def info(self, reference: ObjectReference) -> ObjectInfo:
        """Return an object's size, ETag, version and metadata."""
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
        # A response to HEAD has no body: the one to GET says whether the credentials or the object are refused.
        answer = client.get_object(**request)
        answer["Body"].close()
        return answer

    @contextmanager
    def reading(self, reference: ObjectReference) -> Iterator[Reader]:
        """Open an object while the block runs; the reader resumes after a broken connection."""
        client = s3.client(self._settings)
        request = reference.request()
        with (
            _about(reference),
            s3_reader.reader(client, request, what=_what(reference), attempts=self._settings.attempts) as reader,
        ):
            yield reader


@contextmanager
def _about(reference: ObjectReference) -> Iterator[None]:
    """Separate errors of one source (PermanentError) from errors of S3.

    Errors of a source are part of outputs: their words do not change from one attempt to the next.
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
    """Return why the server refuses this object, and what to do; None when the error does not concern the object."""
    if isinstance(error, ParamValidationError):
        return "the source's bucket or key has a name that S3 doesn't know: correct it"
    if not isinstance(error, ClientError):
        return None
    code, status = error.response["Error"]["Code"], _status(error)
    if code in _NOT_OF_THE_OBJECT or not _BAD_REQUEST <= status < _SERVER_ERROR:
        return None
    other = f"the server won't give the source ({status} {code}): see whether it can be read at all"
    return _OF_THE_OBJECT.get(code) or _OF_THE_OBJECT.get(status) or other
