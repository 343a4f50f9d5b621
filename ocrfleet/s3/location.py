"""Locations in S3: s3://bucket/key as people type it and as records store it. Needs no client."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

SCHEME = "s3://"
#: AWS's rule, and what other servers allow; no access points, whose names have colons
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


@dataclass(frozen=True)
class S3Location:
    """An object; or a prefix, with a key that is empty or ends in a slash. The key is not percent-encoded."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


def uri(bucket: str, key: str) -> str:
    """Return the URI of an object as it is stored: percent-encoded, for any key."""
    return f"{SCHEME}{bucket}/{quote(key, safe='/')}"


def parse(stored: str) -> S3Location:
    """Return the location of a stored URI, the inverse of `uri`. Raises ValueError, also for keys with dot segments."""
    return _without_dots(_decoded(stored))


def typed(text: str) -> S3Location:
    """Return the location of s3://bucket/key as a person types it, not percent-encoded.

    Raises ValueError, also for keys with dot segments.
    """
    return _without_dots(_typed(text))


def as_typed(stored: str) -> str:
    """Return a stored URI as a person types it, the inverse of `typed`; other URIs are returned unchanged."""
    return str(_decoded(stored)) if stored.startswith(SCHEME) else stored


def has_dots(key: str) -> bool:
    """Return whether a key has a segment `.` or `..`: some servers and proxies take it for another object."""
    return not {".", ".."}.isdisjoint(key.split("/"))


def _without_dots(location: S3Location) -> S3Location:
    if has_dots(location.key):
        raise ValueError(f"not s3://bucket/key without the segments . and ..: {str(location)!r}")
    return location


def _decoded(stored: str) -> S3Location:
    location = _typed(stored)
    return S3Location(location.bucket, unquote(location.key, errors="strict"))


def _typed(text: str) -> S3Location:
    bucket, _, key = text.removeprefix(SCHEME).partition("/")
    if not text.startswith(SCHEME) or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"not s3://bucket or s3://bucket/key: {text!r}")
    return S3Location(bucket, key)
