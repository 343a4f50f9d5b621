"""Registration: makes a document of a source, with a manifest, a marker and a record of the submission.

Registering twice is harmless: the same bytes, pages and profile are the same document for every client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, PermanentError, Reason
from ocrfleet.records.base import Moment, digest_of, moment
from ocrfleet.records.documents import DocumentKey, DocumentStatus, Manifest, Marker, Problem, Source, Status
from ocrfleet.records.submissions import SourceReference, Submission, SubmissionOptions
from ocrfleet.records.tenants import DEFAULT, tenant_of
from ocrfleet.sources.sources import STORED, uri_of
from ocrfleet.storage.store import MARK
from producer.intake.page_ranges import Selection, select
from producer.state.backlog import count_waiting
from producer.state.quarantine import release
from producer.state.statuses import latest_status
from producer.state.submissions import foreign_keys, note_cancelled, own_keys, read_submissions

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.profiles.profile import Profile
    from ocrfleet.storage.store import ObjectStore
    from producer.intake.discover import Candidate
    from producer.intake.inspect import Intake


#: Failures with a cause outside the document: they are retried when it is registered again.
_PASSING = {Reason.SOURCE_CHANGED, Reason.SOURCE_MISSING, Reason.NEEDS_PASSWORD}


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered document."""

    name: str
    document: str
    generation: int
    total: int
    #: whether it has ended already, and is only to be delivered
    ended: bool


class Registration:
    """Registers sources with one profile and the same submission options. Threads may share it."""

    def __init__(
        self,
        store: ObjectStore,
        intake: Intake,
        *,
        profile: Profile,
        terms: SubmissionOptions,
        retry_failed: bool = False,
        ledger: Ledger | None = None,
        admit: Callable[[Source, int], None] = lambda _source, _pages: None,
        client: str | None = None,
        largest: int | None = None,
    ) -> None:
        """With a ledger, waiting pages are counted there. Sources of more than `largest` bytes are not fetched.

        `client` takes turns at the probes, by default the tenant. `admit` may raise an error to refuse a source of which so many
        pages are to be read; with a PermanentError, it becomes a document without pages.
        """
        self._store = store
        self._intake = intake
        self._profile = profile
        self._terms = terms
        self._retry_failed = retry_failed
        tenant = tenant_of(terms.collection)
        self._of_a_tenant = tenant != DEFAULT
        self._client = client or (tenant if self._of_a_tenant else "")
        self._largest = largest
        self._ledger = ledger
        self._admit = admit
        #: what this registration had tried: under another name it is the same document, and not tried once more
        self._opened: set[str] = set()

    def register(self, candidate: Candidate) -> Registered:
        """Register files that were found in a folder. Raises TransientError."""
        manifest = manifest_of(candidate, self._intake, profile=self._profile, selection=self._terms.selection)
        return self._settle(candidate.name, uri_of(candidate.files[0]), manifest, moment())

    def register_reference(self, reference: SourceReference, *, submitted: Moment) -> Registered:
        """Register a source that was submitted at a time.

        Raises OwnOutputError for a delivered result, TransientError.
        """
        try:
            source = self._intake.inspect(reference, client=self._client, largest=self._largest)
            if self._of_a_tenant:
                source = source.model_copy(update={"unnamed": True})
            pages = select(self._terms.selection, source.pages)
            self._admit(source, sum(last - first + 1 for first, last in pages))
        except PermanentError as error:
            return self.refuse(reference, error, submitted=submitted)
        return self._settle(
            reference.name, reference.uri, _manifest(self._profile, (source,), pages, [source.sha256], None), submitted
        )

    def refuse(self, reference: SourceReference, error: PermanentError, *, submitted: Moment) -> Registered:
        """Register a source that can't be read as a document without pages, with the reason."""
        manifest = _broken(self._profile, error, reference.uri, reference.etag or str(reference.mtime_ns))
        return self._settle(reference.name, reference.uri, manifest, submitted)

    def _settle(self, name: str, uri: str, manifest: Manifest, submitted: Moment) -> Registered:
        """Write the manifest, the submission and the marker, in the order that survives a crash."""
        returned = self._undelete(manifest.document)
        made, manifest = manifest, self._stored(manifest)
        document = manifest.document
        submission = Submission(
            name=name.encode("utf-8", "backslashreplace").decode(),
            document=document,
            uri=uri,
            submitted=submitted,
            terms=self._terms,
        )
        renewed, again = self._submit(submission, manifest)
        if manifest is not made and not self._store.exists(keys.manifest(document)):
            # Its last tenant has deleted it meanwhile, before it could see this submission.
            returned |= self._undelete(document)
            self._store.create(keys.manifest(document), manifest.to_bytes())
        self._refer(manifest)
        generation, ended = self._open(manifest, None if again else submission, returned=returned)
        if ended and renewed and (self._terms.results or self._terms.callback):
            # It ended before this submission: the marker makes the dispatcher deliver it again.
            self._mark(manifest, generation, 0)
        return Registered(name, document, generation, manifest.total, ended)

    def _submit(self, submission: Submission, manifest: Manifest) -> tuple[bool, bool]:
        """Store a submission; return whether its record is written, and whether the same one was submitted before.

        One that was submitted before is written again where its name may have named another document meanwhile, or where its
        tenant had cancelled the document.
        """
        tenant = None if submission.tenant == DEFAULT else submission.tenant
        if tenant is not None:
            submission = submission.model_copy(update={"listed": self._listed(submission, tenant)})
        key = keys.wanted(submission.document, submission.digest, tenant)
        listed = keys.submission(
            self._terms.collection, submission.listed or manifest.created, submission.document, submission.digest
        )
        # First: after a crash between the two, no document is delivered that is not listed.
        self._store.create(listed, submission.to_bytes())
        if self._store.create(key, submission.to_bytes()):
            return True, False
        before = Submission.from_bytes(self._store.get(key))
        if before.submitted >= submission.submitted:
            return False, before.submitted > submission.submitted  # equal: the same batch, again after a crash
        if self._terms.results is None and before.cancelled is None:
            return False, True
        self._store.put(key, submission.to_bytes())
        return True, True

    def _listed(self, submission: Submission, tenant: str) -> Moment:
        """Return the time by which a tenant's document is listed: that of its first submission."""
        for key in self._store.list(keys.wanted_by(submission.document, tenant)):
            with suppress(NotFoundError, DamagedRecordError):
                return Submission.from_bytes(self._store.get(key)).listed or submission.submitted
        return submission.submitted

    def _undelete(self, document: str) -> bool:
        """Delete the rest of a document that was deleted and is submitted again; return whether it was deleted.

        The deletion removed manifest and submissions before it was confirmed: those in the store now are new.
        """
        tombstone = keys.deleted(document)
        if not self._store.exists(tombstone):
            return False
        if not self._store.exists(keys.manifest(document)):
            for key in list(self._store.list(keys.document(document))):
                if not key.startswith(keys.wanted_by(document)):
                    self._store.delete(key)
        self._store.delete(tombstone)
        return True

    def _refer(self, manifest: Manifest) -> None:
        """Record which uploads the document needs, so that a purge keeps them."""
        for source in manifest.sources:
            if source.uri.startswith(STORED):
                self._store.put(keys.reference(source.uri.removeprefix(STORED), manifest.document), MARK)

    def _stored(self, manifest: Manifest) -> Manifest:
        """Return the valid manifest: the first one written, with the present location of its sources."""
        key = keys.manifest(manifest.document)
        if self._store.create(key, manifest.to_bytes()):
            return manifest
        first = Manifest.from_bytes(self._store.get(key))
        if all(self._intake.is_where_it_was(source) for source in first.sources):
            return first
        # The file was moved or touched, with the same bytes: workers need its present location.
        moved = first.model_copy(update={"sources": manifest.sources})
        if any(source.unnamed for source in first.sources):
            unnamed = tuple(source.model_copy(update={"unnamed": True}) for source in manifest.sources)
            moved = first.model_copy(update={"sources": unnamed})
        self._store.put(key, moved.to_bytes())
        return moved

    def _open(self, manifest: Manifest, first: Submission | None, *, returned: bool) -> tuple[int, bool]:
        """Return the document's open generation and whether it has ended; write the marker of one that has not.

        A document that was deleted (`returned`) always gets a marker, because the old ones are about to be deleted. One that was
        cancelled is read after all for a tenant that had not submitted it before (`first`).
        """
        document = manifest.document
        last = latest_status(self._store, document)
        ended = last.generation if last is not None else 0
        for key in (keys.active(document), self._waiting(manifest, ended + 1)):
            with suppress(NotFoundError, DamagedRecordError):
                generation = Marker.from_bytes(self._store.get(key)).generation
                # Else the marker is stale: a process was killed before it deleted it.
                if generation > ended and not returned:
                    return generation, False
        if last is not None and (document in self._opened or not self._worth_another_try(last)):
            if document in self._opened or first is None or not self._cancelled_by_others(last, first):
                return last.generation, True
            for submission in read_submissions(self._store, foreign_keys(self._store, document, first.tenant)):
                if submission.cancelled is None:
                    note_cancelled(self._store, submission, last.generation)
            self._store.delete(keys.ended(last.status, manifest.created[:8], document))
        self._opened.add(document)
        if ended:
            release(self._store, document)
        self._mark(manifest, ended + 1, manifest.total - (last.done if last is not None else 0))
        return ended + 1, False

    def _mark(self, manifest: Manifest, generation: int, pages: int) -> None:
        """Make the document wait for the dispatcher."""
        marker = Marker(
            generation=generation,
            queue=self._terms.queue,
            collection=self._terms.collection,
            profile=manifest.profile,
            profile_digest=manifest.profile_digest,
            pages_per_job=self._profile.pages_per_job,
            routes=self._profile.destinations,
            pages=pages,
        )
        self._store.put(self._waiting(manifest, generation), marker.to_bytes())
        count_waiting(self._ledger, marker)

    def _waiting(self, manifest: Manifest, generation: int) -> str:
        terms = self._terms
        return keys.waiting(terms.queue, terms.collection, manifest.created, manifest.document, generation)

    def _cancelled_by_others(self, status: Status, first: Submission) -> bool:
        """Return whether the document was cancelled before this tenant submitted it."""
        if status.status is not DocumentStatus.CANCELLED:
            return False
        return len(list(islice(own_keys(self._store, first.document, first.tenant), 2))) == 1

    def _worth_another_try(self, status: Status) -> bool:
        if status.status in {DocumentStatus.COMPLETED, DocumentStatus.CANCELLED} or status.problem is not None:
            return False
        return self._retry_failed or any(failure.reason in _PASSING for failure in status.failures)


def manifest_of(candidate: Candidate, intake: Intake, *, profile: Profile, selection: Selection) -> Manifest:
    """Return the manifest of a candidate; for one that can't be read, with a problem and without pages."""
    try:
        sources = _sources(candidate, intake)
        pages = select(selection, sum(source.pages for source in sources))
    except PermanentError as error:
        return _broken(profile, error, *(uri_of(path) for path in candidate.files))
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


def _broken(profile: Profile, error: PermanentError, *what: str) -> Manifest:
    """Return the manifest of a source that can't be read, which its location identifies."""
    return _manifest(profile, (), (), [digest_of(*what)], Problem(reason=error.reason, detail=error.detail))


def _manifest(
    profile: Profile,
    sources: tuple[Source, ...],
    pages: tuple[tuple[int, int], ...],
    digests: Iterable[str],
    problem: Problem | None,
) -> Manifest:
    return Manifest(
        document=DocumentKey.of(sources=digests, selection=pages, profile_digest=profile.digest, problem=problem),
        created=moment(),
        profile=profile.name,
        profile_digest=profile.digest,
        sources=sources,
        selection=pages,
        problem=problem,
    )
