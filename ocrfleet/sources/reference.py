"""What names an object in S3 as a source, and the errors of a source that is gone or changed. Needs no client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.s3 import location

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectRequestTypeDef

GONE = "the source is gone; put it back and run again"


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """An object, optionally in one version or with one ETag (without quotation marks)."""

    uri: str
    etag: str | None = None
    version: str | None = None

    def request(self) -> GetObjectRequestTypeDef:
        """Return the arguments of a GET or HEAD request. Raises PermanentError for an invalid URI."""
        try:
            place = location.parse(self.uri)
        except ValueError as error:
            raise PermanentError(Reason.SOURCE_MISSING, "the source has no URI of S3: s3://bucket/key") from error
        request: GetObjectRequestTypeDef = {"Bucket": place.bucket, "Key": place.key}
        if self.etag is not None:
            request["IfMatch"] = f'"{self.etag}"'
        if self.version is not None:
            request["VersionId"] = self.version
        return request


def gone() -> PermanentError:
    """Return the error of a source that is no longer there."""
    return PermanentError(Reason.SOURCE_MISSING, GONE)


def changed() -> PermanentError:
    """Return the error of a source that has other bytes than those registered."""
    return PermanentError(
        Reason.SOURCE_CHANGED, "the source changed after it was registered; run again to have the new one read"
    )
