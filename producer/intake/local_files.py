"""Submits files of this machine: by their paths or, if the fleet has no access to them, after an upload."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.records.submissions import SourceReference, SubmissionOptions
from ocrfleet.sources.sources import uri_of, uri_of_upload
from ocrfleet.storage.store import FolderStore
from producer.intake.batches import IntakeBatches
from producer.intake.discover import Candidate, Skipped, discover

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore
    from producer.intake.batches import Count

#: Files in one batch.
_AT_ONCE = 100
_CHUNK = 1 << 20


def submit_files(
    store: ObjectStore, terms: SubmissionOptions, paths: Sequence[Path], count: Count, *, progress: Callable[[], None]
) -> list[Skipped]:
    """Submit files and the files in folders; return those that are skipped. The profile in `terms` must be in the store.

    With a store in a local folder the files are referenced by path, so all machines must have them there. Updates `count`
    and calls `progress` after each batch. Raises UsageError, TransientError.
    """
    batches = IntakeBatches(store)
    skipped: list[Skipped] = []
    found = discover(paths, group_folders=False)
    while chunk := list(islice(found, _AT_ONCE)):
        before = len(skipped)
        count.seen += len(chunk)
        count.submitted += batches.add_all(terms, _references(store, chunk, skipped, named=set(paths)))
        count.skipped += len(skipped) - before
        progress()
    return skipped


def list_files(paths: Sequence[Path], count: Count, skipped: list[Skipped]) -> Iterator[SourceReference]:
    """Yield references to the files that would be submitted, and count them. Raises UsageError."""
    for item in discover(paths, group_folders=False):
        count.seen += 1
        if isinstance(item, Skipped):
            skipped.append(item)
            count.skipped += 1
        else:
            count.submitted += 1
            yield _referenced(item)


def _references(
    store: ObjectStore, chunk: Sequence[Candidate | Skipped], skipped: list[Skipped], *, named: Collection[Path]
) -> Iterator[SourceReference]:
    for item in chunk:
        if isinstance(item, Skipped):
            skipped.append(item)
            continue
        try:
            yield _referenced(item) if isinstance(store, FolderStore) else _uploaded(store, item)
        except OSError as error:
            reason = f"it can't be read: {error.strerror}"
            skipped.append(Skipped(item.name, reason, named=item.files[0] in named))


def _referenced(candidate: Candidate) -> SourceReference:
    (path,) = candidate.files
    facts = path.stat()
    return SourceReference(name=_name(candidate), uri=uri_of(path), size=facts.st_size, mtime_ns=facts.st_mtime_ns)


def _uploaded(store: ObjectStore, candidate: Candidate) -> SourceReference:
    """Upload a copy, whose hash can't change while it is sent: the hash names the upload."""
    (path,) = candidate.files
    sha, size = hashlib.sha256(), 0
    with path.open("rb") as source, tempfile.TemporaryFile() as copy:
        while chunk := source.read(_CHUNK):
            sha.update(chunk)
            size += len(chunk)
            copy.write(chunk)
        copy.flush()
        store.create_from(keys.upload(sha.hexdigest()), Path(f"/dev/fd/{copy.fileno()}"))
    return SourceReference(name=_name(candidate), uri=uri_of_upload(sha.hexdigest()), size=size)


def _name(candidate: Candidate) -> str:
    return candidate.name.encode("utf-8", "backslashreplace").decode()
