"""Registration: a candidate becomes a document with a manifest and a marker, and its submission is noted.

Registering twice is harmless: the same bytes, pages and profile are the same document, whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, PermanentError, Reason
from ocrfleet.jobs import (
    DocumentKey,
    DocumentStatus,
    Manifest,
    Marker,
    Problem,
    Queue,
    Source,
    Status,
    Submission,
    digest_of,
)
from ocrfleet.sources import is_where_it_was, uri_of
from ocrfleet.storage import NotFoundError

if TYPE_CHECKING:
    from ocrfleet.profiles import Profile
    from ocrfleet.storage import ObjectStore
    from producer.discover import Candidate
    from producer.intake import Intake

Selection = Sequence[tuple[int, int | None]]

#: Failures whose cause lies outside the document: registering it again is reason enough to try again.
_PASSING = {Reason.SOURCE_CHANGED, Reason.SOURCE_MISSING, Reason.NEEDS_PASSWORD}


@dataclass(frozen=True, slots=True)
class Registered:
    """A document that somebody asked for."""

    name: str
    document: str
    generation: int
    total: int
    #: terminal already: nothing is to be done but to deliver it
    ended: bool


class Registrar:
    """Registers candidates under one profile, queue class and collection."""

    def __init__(
        self,
        store: ObjectStore,
        intake: Intake,
        *,
        profile: Profile,
        queue: Queue,
        collection: str,
        selection: Selection,
        retry_failed: bool,
    ) -> None:
        self._store = store
        self._intake = intake
        self._profile = profile
        self._queue = queue
        self._collection = collection
        self._selection = selection
        self._retry_failed = retry_failed
        #: what this registrar had tried: under another name it is the same document, and not tried once more
        self._opened: set[str] = set()

    def register(self, candidate: Candidate) -> Registered:
        """Write the document's manifest, the submission and the marker, in the order that survives a crash."""
        manifest = self._stored(manifest_of(candidate, self._intake, profile=self._profile, selection=self._selection))
        document = manifest.document
        submission = Submission(
            name=candidate.name.encode("utf-8", "backslashreplace").decode(),
            document=document,
            queue=self._queue,
            collection=self._collection,
        )
        self._store.create(
            keys.submission(digest_of(self._collection, candidate.name, document)), submission.to_bytes()
        )
        generation, ended = self._open(manifest)
        return Registered(candidate.name, document, generation, manifest.total, ended)

    def _stored(self, manifest: Manifest) -> Manifest:
        """Return the manifest that stands: the first one written, with the source where it was last seen."""
        key = keys.manifest(manifest.document)
        if self._store.create(key, manifest.to_bytes()):
            return manifest
        first = Manifest.from_bytes(self._store.get(key))
        if all(is_where_it_was(source) for source in first.sources):
            return first
        # The file was moved or touched, its bytes are the same: workers must find it where it is now.
        moved = first.model_copy(update={"sources": manifest.sources})
        self._store.put(key, moved.to_bytes())
        return moved

    def _open(self, manifest: Manifest) -> tuple[int, bool]:
        """Return the document's open generation and whether it has ended; write the marker of one that has not."""
        document = manifest.document
        last = latest_status(self._store, document)
        ended = last.generation if last is not None else 0
        waiting = keys.waiting(self._queue, self._collection, manifest.created, document)
        for key in (keys.active(document), waiting):
            with suppress(NotFoundError, DamagedRecordError):
                generation = Marker.from_bytes(self._store.get(key)).generation
                if generation > ended:  # else it was left by somebody who was killed before he removed it
                    return generation, False
        if last is not None and (document in self._opened or not self._worth_another_try(last)):
            return last.generation, True
        self._opened.add(document)
        marker = Marker(
            generation=ended + 1,
            queue=self._queue,
            collection=self._collection,
            profile=manifest.profile,
            profile_digest=manifest.profile_digest,
            pages_per_job=self._profile.pages_per_job,
            routes=self._profile.destinations,
        )
        self._store.put(waiting, marker.to_bytes())
        return ended + 1, False

    def _worth_another_try(self, status: Status) -> bool:
        if status.status in {DocumentStatus.COMPLETED, DocumentStatus.CANCELLED} or status.problem is not None:
            return False
        return self._retry_failed or any(failure.reason in _PASSING for failure in status.failures)


def latest_status(store: ObjectStore, document: str) -> Status | None:
    """Return how a document ended last; None while it has not ended even once."""
    key = max(store.list(keys.statuses(document)), default=None)
    return Status.from_bytes(store.get(key)) if key else None


def manifest_of(candidate: Candidate, intake: Intake, *, profile: Profile, selection: Selection) -> Manifest:
    """Take a candidate in. One that can't be read becomes a manifest with a problem and no pages."""
    try:
        sources = _sources(candidate, intake)
        pages = select(selection, sum(source.pages for source in sources))
    except PermanentError as error:
        problem = Problem(reason=error.reason, detail=error.detail)
        digests = [digest_of(*(uri_of(path) for path in candidate.files))]
        return _manifest(profile, (), (), digests, problem)
    return _manifest(profile, sources, pages, [source.sha256 for source in sources], None)


def _sources(candidate: Candidate, intake: Intake) -> tuple[Source, ...]:
    sources = []
    for path in candidate.files:
        try:
            sources.append(intake.source(path))
        except PermanentError:
            if not candidate.grouped:
                raise
            sources.append(intake.broken_page(path))
    return tuple(sources)


def _manifest(
    profile: Profile,
    sources: tuple[Source, ...],
    pages: tuple[tuple[int, int], ...],
    digests: Iterable[str],
    problem: Problem | None,
) -> Manifest:
    return Manifest(
        document=DocumentKey.of(sources=digests, selection=pages, profile_digest=profile.digest, problem=problem),
        created=datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ"),
        profile=profile.name,
        profile_digest=profile.digest,
        sources=sources,
        selection=pages,
        problem=problem,
    )


def select(selection: Selection, total: int) -> tuple[tuple[int, int], ...]:
    """Return the pages asked for that a document of `total` pages has, as ascending ranges that do not touch.

    Raises PermanentError when it has none of them.
    """
    merged: list[tuple[int, int]] = []
    for first, end in sorted((first, min(last or total, total)) for first, last in selection or [(1, None)]):
        if end < first:
            continue
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((first, end))
    if not merged:
        raise PermanentError(Reason.NO_SUCH_PAGES, f"the document has {total} pages, and none of those asked for")
    return tuple(merged)
