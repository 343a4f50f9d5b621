"""Listing of an S3 prefix, page by page: memory does not grow with the number of objects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from ocrfleet.records.base import Record
from ocrfleet.records.submissions import SourceReference
from ocrfleet.s3 import client as s3
from ocrfleet.s3 import location

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Entry(Record):
    """An object in a listing."""

    key: str
    size: int
    etag: str
    modified: datetime


def entries(client: S3Client, bucket: str, prefix: str) -> Iterator[Entry]:
    """Yield the objects below a prefix, in the server's order. Raises TransientError, ConfigurationError."""
    what = f"the listing of s3://{bucket}/{prefix}"
    with s3.errors(what):
        pages = iter(client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix))
    while True:
        with s3.errors(what):
            page = next(pages, None)
        if page is None:
            return
        for found in page.get("Contents", ()):
            if not found["Key"].endswith("/"):  # placeholders of empty folders
                yield Entry(
                    key=found["Key"],
                    size=found["Size"],
                    etag=found["ETag"].strip('"'),
                    modified=found["LastModified"],
                )


def reference(bucket: str, entry: Entry) -> SourceReference:
    """Return the source reference of a listed object."""
    return SourceReference(name=entry.key, uri=location.uri(bucket, entry.key), size=entry.size, etag=entry.etag)
