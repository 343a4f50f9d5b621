"""Page records in the store: store them, list them, seed the ledger from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.broker.ledger import Ledger, Mark
from ocrfleet.records.documents import Manifest
from ocrfleet.records.messages import PageJob
from ocrfleet.records.pages import PageResult, PageStatus

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore


@dataclass(frozen=True, slots=True)
class StoredPages:
    """Pages of a document with a record. A page that is done counts as done, whatever failed before."""

    done: set[int] = field(default_factory=set)
    #: failed in the generation asked for, and not done
    failed: set[int] = field(default_factory=set)

    @property
    def terminal(self) -> set[int]:
        return self.done | self.failed


def stored_pages(
    store: ObjectStore, document: str, generation: int, *, first: int = 1, last: int | None = None
) -> StoredPages:
    """List a document's page records from page `first` to page `last`, by their keys. Raises TransientError."""
    done: set[int] = set()
    failed: set[int] = set()
    after = keys.page_done(document, first - 1) if first > 1 else None
    for key in store.list(keys.pages(document), after=after):
        page, failed_in = keys.parse_page(key)
        if last is not None and page > last:
            break
        if page < first:
            continue
        if failed_in is None:
            done.add(page)
        elif failed_in == generation:
            failed.add(page)
    return StoredPages(done, failed - done)


def seed_ledger(store: ObjectStore, ledger: Ledger, manifest: Manifest, generation: int) -> StoredPages | None:
    """Seed the ledger from the store and return the stored pages; None, and no ledger, when the document ended or is gone.

    The store is checked after the ledger was seeded. Cancelling and deleting write to the store first and clear the ledger
    then. So one of the two sees the other, and a cancelled document keeps no ledger. Raises TransientError.
    """
    document = manifest.document
    pages = stored_pages(store, document, generation)
    ledger.seed(document, generation, total=manifest.total, done=pages.done, failed=pages.failed)
    if store.exists(keys.status(document, generation)) or not store.exists(keys.manifest(document)):
        ledger.forget(document, generation)
        return None
    return pages


def record_pages(store: ObjectStore, ledger: Ledger, job: PageJob, manifest: Manifest, result: PageResult) -> None:
    """Store a page's result and mark it in the ledger, which ends its being in flight. Raises TransientError.

    A repetition or a lost race changes nothing. A document that has ended meanwhile, as by being cancelled, gets no ledger
    again.
    """
    failed = result.status is PageStatus.FAILED
    key = (
        keys.page_failed(job.document, result.page, job.generation)
        if failed
        else keys.page_done(job.document, result.page)
    )
    store.create(key, result.to_bytes())
    if ledger.mark(job.document, job.generation, [result.page], failed=failed) is Mark.UNKNOWN:
        seed_ledger(store, ledger, manifest, job.generation)
