"""Open the object store of the settings: a local folder or S3."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ocrfleet.errors import ConfigurationError
from ocrfleet.s3.location import SCHEME, typed
from ocrfleet.storage.store import FolderStore

if TYPE_CHECKING:
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore


def open_store(settings: Settings) -> ObjectStore:
    """Return the object store that OCRFLEET_STORE names, after one request to it.

    Raises ConfigurationError when it can't be used, TransientError when it is away.
    """
    if not settings.store.startswith(SCHEME):
        return FolderStore(Path(settings.store))
    from ocrfleet.storage.s3_store import S3Store  # noqa: PLC0415 - boto3 takes half a second

    try:
        location = typed(settings.store)
    except ValueError as error:
        raise ConfigurationError(f"OCRFLEET_STORE must be a folder or s3://bucket/prefix: {error}") from error
    store = S3Store(settings.s3, location.bucket, location.key)
    store.check()
    return store
