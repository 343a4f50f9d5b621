"""S3 client: one for each process, and the translation of boto3's errors."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import boto3.session
import botocore.exceptions
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.parsers import ResponseParserError

from ocrfleet.errors import ConfigurationError, NotFoundError, OcrfleetError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from ocrfleet.settings import S3Settings

#: Characters of a server's own message that an error repeats.
_LONGEST_WORDS = 200


class PreconditionFailedError(OcrfleetError):
    """The object does not meet the condition of the request (If-Match, If-None-Match)."""


@functools.lru_cache
def client(settings: S3Settings) -> S3Client:
    """Return the process's client for these settings. Thread-safe. Raises ConfigurationError."""
    made = _client(settings, settings.addressing)
    if settings.addressing == "auto" and not _is_aws(made):
        # Few servers other than AWS have a host name for each bucket. Only the client knows its endpoint: boto3 also reads it
        # from its own variables and files.
        made = _client(settings, "path")
    return made


def signer(settings: S3Settings, bucket: str) -> S3Client:
    """Return a client that makes presigned URLs for a bucket, at the endpoint that clients reach. Sends nothing."""
    if settings.public_endpoint_url is not None:
        settings = settings.model_copy(
            update={"endpoint_url": settings.public_endpoint_url, "public_endpoint_url": None}
        )
    made = client(settings)
    if settings.addressing == "auto" and _is_aws(made) and "." not in bucket:
        # On AWS, boto3 would use the global endpoint, which may redirect to the bucket's region: that breaks a signature.
        return client(settings.model_copy(update={"addressing": "virtual"}))
    return made


def _is_aws(made: S3Client) -> bool:
    host = urlsplit(made.meta.endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _client(settings: S3Settings, addressing: Literal["auto", "path", "virtual"]) -> S3Client:
    config = Config(
        signature_version="s3v4",
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        max_pool_connections=settings.connections,
        tcp_keepalive=True,
        # Pauses grow exponentially and are random; a budget of retries limits the load of many threads.
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        s3={"addressing_style": addressing},
        # By default, boto3 sends a CRC32 in a trailer after the body, which older servers refuse or, worse, store as content.
        # Without it, TLS or the signature over the body's SHA-256 protects the body.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        # A session of its own: boto3's default session is not thread-safe.
        return boto3.session.Session().client(
            "s3", endpoint_url=settings.endpoint_url, region_name=settings.region, config=config
        )
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        # Without the message of the error: an endpoint may contain a password.
        raise ConfigurationError(
            f"no S3 client can be made ({type(error).__name__}): look at OCRFLEET_S3_ENDPOINT_URL, which must be like "
            "https://host:port, at OCRFLEET_S3_REGION and at boto3's own variables and files (AWS_*, ~/.aws)"
        ) from None


def write_arguments(settings: S3Settings) -> dict[str, Any]:
    """Return the arguments of each request that creates an object: encryption and storage class."""
    arguments = {
        "ServerSideEncryption": settings.server_side_encryption,
        "SSEKMSKeyId": settings.kms_key_id,
        "StorageClass": settings.storage_class,
    }
    return {name: value for name, value in arguments.items() if value is not None}


@contextmanager
def errors(what: str) -> Iterator[None]:
    """Translate boto3's errors about `what` (a noun: "the source s3://a/b").

    Raises NotFoundError when the object is missing, PreconditionFailedError, TransientError for errors that may pass (after
    the client's own retries), ConfigurationError for what a person must correct. Their messages contain no secrets.
    """
    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise _answered(what, error) from error
    except (botocore.exceptions.BotoCoreError, Boto3Error, ResponseParserError) as error:
        raise _unanswered(what, error) from error
    except RecursionError:
        # Redirected without a region, boto3 asks for it, is redirected again, and so on.
        raise ConfigurationError(f"{what}: {_REMEDY['PermanentRedirect']}") from None


#: Remedies for error codes that need a person. Numeric codes are those of HEAD, whose responses have no body.
_REMEDIES = {
    "the bucket doesn't exist: make it, or correct its name": ("NoSuchBucket", "InvalidBucketName"),
    "the bucket is in another region or at another endpoint: set OCRFLEET_S3_REGION (or AWS_REGION), or "
    "OCRFLEET_S3_ENDPOINT_URL": (
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "301",
    ),
    "the server doesn't accept the key pair: look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile or the role": (
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidSecurity",
        "NotSignedUp",
    ),
    "the credentials have expired: get new ones (AWS_SESSION_TOKEN)": (
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
    ),
    "there is no permission: whoever these credentials belong to needs s3:ListBucket on the bucket, and on its objects "
    "s3:GetObject and, where we write, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload": (
        "AccessDenied",
        "AllAccessDisabled",
        "AccountProblem",
        "Forbidden",
        "403",
    ),
    "this machine's clock is wrong: set it": ("RequestTimeTooSkewed",),
    "the object is archived: restore it in S3 first": ("InvalidObjectState",),
}
_REMEDY = {code: remedy for remedy, codes in _REMEDIES.items() for code in codes}
_MISSING = {"NoSuchKey", "NoSuchVersion", "404", "NotFound"}
_PASSING = {
    *(
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "BandwidthLimitExceeded",
    ),
    *(
        "RequestTimeout",
        "RequestTimeoutException",
        "OperationAborted",
        "ConditionalRequestConflict",
        "TemporaryRedirect",
    ),
    # The body was damaged on the way; or another process aborted the upload.
    *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "InvalidDigest", "NoSuchUpload"),
}
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_NOT_IMPLEMENTED = 501
_CONFLICT = 409
_PRECONDITION_FAILED = 412


def _answered(what: str, error: botocore.exceptions.ClientError) -> OcrfleetError:
    """Translate an error response of the server."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        # For HEAD of a bucket, the code is the same as for an object.
        bucket = error.operation_name == "HeadBucket"
        return (
            ConfigurationError(f"{what}: {_REMEDY['NoSuchBucket']}") if bucket else NotFoundError(f"{what}: no object")
        )
    if status == _PRECONDITION_FAILED or code == "PreconditionFailed":
        return PreconditionFailedError(f"{what}: it is not what it was, or is there already")
    if code in _REMEDY:
        return ConfigurationError(f"{what}: {_REMEDY[code]} ({code})")
    passing = status in {_TOO_MANY_REQUESTS, _CONFLICT} or (status >= _SERVER_ERROR and status != _NOT_IMPLEMENTED)
    if passing or code in _PASSING:
        return TransientError(
            f"{what}: the server can't do it now ({status} {code}); to be tried again; if it goes on, look at its log and at OCRFLEET_S3_ENDPOINT_URL"
        )
    words = str(error.response.get("Error", {}).get("Message", ""))[:_LONGEST_WORDS]
    return ConfigurationError(
        f"{what}: the server refuses {error.operation_name} ({status} {code}: {words!r}): correct the settings OCRFLEET_S3_*"
    )


def _unanswered(what: str, error: Exception) -> OcrfleetError:
    """Translate an error without a valid response. boto3's own messages are left out, as they may contain secrets."""
    name = type(error).__name__
    match error:
        case (
            botocore.exceptions.NoCredentialsError()
            | botocore.exceptions.PartialCredentialsError()
            | botocore.exceptions.ProfileNotFound()
            | botocore.exceptions.TokenRetrievalError()
            | botocore.exceptions.SSOError()
            | botocore.exceptions.LoginError()
            | botocore.exceptions.NoAuthTokenError()
            | botocore.exceptions.RefreshWithMFAUnsupportedError()
        ):
            return ConfigurationError(
                f"{what}: there are no credentials ({name}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, "
                "or give this machine a role"
            )
        case botocore.exceptions.SSLError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ConfigurationError(
                f"{what}: the server's certificate isn't trusted: set AWS_CA_BUNDLE to its authority's"
            )
        case botocore.exceptions.CredentialRetrievalError() | botocore.exceptions.MetadataRetrievalError():
            return TransientError(f"{what}: credentials can't be fetched now ({name}); to be tried again")
        case ResponseParserError():
            return TransientError(
                f"{what}: the answer can't be understood: is an S3 server at OCRFLEET_S3_ENDPOINT_URL?"
            )
        case (
            botocore.exceptions.ConnectionError()
            | botocore.exceptions.HTTPClientError()
            | botocore.exceptions.IncompleteReadError()
            | botocore.exceptions.ChecksumError()
            | botocore.exceptions.FlexibleChecksumError()
            | Boto3Error()
        ):
            return TransientError(
                f"{what}: the S3 server can't be reached, or broke off ({name}): is it up, and OCRFLEET_S3_ENDPOINT_URL right?"
            )
        case _:
            return ConfigurationError(f"{what}: the request can't be made ({name}): correct the settings OCRFLEET_S3_*")
