"""A store with documents in every state, for tests of views and services."""

from __future__ import annotations

import itertools
from pathlib import Path

from ocrfleet import keys
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.documents import DocumentStatus, Failure, Kind, Manifest, Marker, Output, Source, Status
from ocrfleet.records.pages import PageResult, PageStatus
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import IntakeBatch, SourceReference, Submission, SubmissionOptions
from ocrfleet.settings import Settings
from ocrfleet.storage.store import FolderStore
from producer.documents.service import DocumentService

#: An unreachable Redis.
AWAY = "redis://127.0.0.1:1/0"


class Shelf:
    """A store with documents that never went through intake, dispatcher or worker."""

    def __init__(self, folder: Path, redis_url: str = AWAY) -> None:
        self.store = FolderStore(folder / "store")
        self.settings = Settings(store=str(folder / "store"), redis_url=redis_url, job_deadline=3600)
        self.ledger = Ledger(redis_url)
        self.registry = DocumentService(self.store, self.ledger, self.settings)
        self._numbers = itertools.count(1)

    def manifest(self, *, pages: int = 3, day: str = "20261122", uri: str = "file:///scans/a.pdf") -> Manifest:
        number = next(self._numbers)
        source = Source(uri=uri, size=1, mtime_ns=1, sha256=f"{number:064x}", kind=Kind.PDF, pages=pages)
        manifest = Manifest(
            document=f"{number:032x}",
            created=f"{day}T{number:06d}.000000Z",
            profile=RAPIDOCR.name,
            profile_digest=RAPIDOCR.digest,
            sources=(source,),
            selection=((1, pages),),
        )
        self.store.put(keys.manifest(manifest.document), manifest.to_bytes())
        return manifest

    def want(
        self, manifest: Manifest, name: str = "a.pdf", collection: str = "c", queue: Priority = Priority.BULK
    ) -> None:
        submission = Submission(
            name=name,
            document=manifest.document,
            uri=f"s3://archive/{name}",
            submitted=manifest.created,
            terms=terms(collection, queue),
        )
        listed = keys.submission(collection, manifest.created, manifest.document, submission.digest)
        self.store.put(listed, submission.to_bytes())
        self.store.put(keys.wanted(manifest.document, submission.digest), submission.to_bytes())

    def waiting(self, name: str = "a.pdf", *, collection: str = "c", pages: int = 3, day: str = "20261122") -> str:
        manifest = self.manifest(pages=pages, day=day)
        self.want(manifest, name, collection)
        key = keys.waiting(Priority.BULK, collection, manifest.created, manifest.document, 1)
        self.store.put(key, marker(1, collection).to_bytes())
        return manifest.document

    def active(self, name: str = "a.pdf", *, collection: str = "c", pages: int = 3) -> str:
        manifest = self.manifest(pages=pages)
        self.want(manifest, name, collection)
        self.store.put(keys.active(manifest.document), marker(1, collection).to_bytes())
        return manifest.document

    def ended(
        self,
        name: str = "a.pdf",
        *,
        collection: str = "c",
        failed: dict[int, Reason] | None = None,
        day: str = "20261122",
        uri: str = "file:///scans/a.pdf",
    ) -> str:
        """A document of three pages that has ended, with these failures."""
        manifest = self.manifest(day=day, uri=uri)
        self.want(manifest, name, collection)
        document = manifest.document
        failed = failed or {}
        for page in manifest.pages():
            key = keys.page_failed(document, page, 1) if page in failed else keys.page_done(document, page)
            self.store.put(key, page_result(page, failed.get(page)).to_bytes())
        done = 3 - len(failed)
        outcome = DocumentStatus.COMPLETED if done == 3 else DocumentStatus.PARTIAL if done else DocumentStatus.FAILED
        output = Output(key=keys.output(document, 1, "a" * 64, "md"), sha256="a" * 64, size=4)
        self.store.put(output.key, b"text")
        status = Status(
            document=document,
            generation=1,
            status=outcome,
            total=3,
            done=done,
            blank=1,
            failures=tuple(Failure(page=page, reason=reason, detail="so") for page, reason in failed.items()),
            outputs={"md": output},
        )
        self.store.put(keys.status(document, 1), status.to_bytes())
        self.store.put(keys.ended(outcome, day, document), b".")
        return document

    def arrive(self, *names: str, collection: str = "c") -> None:
        wishes = tuple(SourceReference(name=name, uri=f"s3://archive/{name}", size=1) for name in names)
        arrival = IntakeBatch(created="20261123T000000.000000Z", terms=terms(collection), wishes=wishes)
        self.store.put(keys.arrival(Priority.BULK, collection, arrival.created, "d" * 64), arrival.to_bytes())

    def kept(self, document: str) -> list[str]:
        return list(self.store.list(keys.document(document)))


def terms(collection: str, queue: Priority = Priority.BULK) -> SubmissionOptions:
    return SubmissionOptions(profile_digest=RAPIDOCR.digest, queue=queue, collection=collection)


def marker(generation: int, collection: str = "c") -> Marker:
    return Marker(
        generation=generation,
        queue=Priority.BULK,
        collection=collection,
        profile=RAPIDOCR.name,
        profile_digest=RAPIDOCR.digest,
        pages_per_job=1,
    )


def page_result(page: int, reason: Reason | None = None) -> PageResult:
    return PageResult(
        page=page,
        status=PageStatus.FAILED if reason else PageStatus.DONE,
        reason=reason,
        detail="so" if reason else None,
        profile="rapidocr",
        engine="rapidocr",
        model="m",
        revision="r",
        text=f"text of {page}",
    )
