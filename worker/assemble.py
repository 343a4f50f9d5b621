"""Assembly: writes a document's outputs from its stored pages, in order, then the status that names them.

The content comes from the store only. The same stored pages give the same bytes. Outputs are named by their content and the
status is created once, so a second assembly, at the same time or later, changes nothing that a reader has seen.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.records.documents import DocumentStatus, Failure, Manifest, Output, ReviewPage, Status
from ocrfleet.records.pages import PageResult, PageStatus
from ocrfleet.scratch import scratch
from ocrfleet.storage.page_records import StoredPages, stored_pages
from worker.formats import WRITERS

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)


def assemble(store: ObjectStore, ledger: Ledger, document: str, generation: int) -> Status | None:
    """Write a document's outputs and its status, and return it; return None when pages have no record.

    The ledger is then seeded again from the store, so that the dispatcher publishes those pages: no page is left out. May be
    repeated. Raises NotFoundError for a document that was deleted, TransientError when the store or Redis can't be reached.
    """
    if store.exists(keys.status(document, generation)):
        status = Status.from_bytes(store.get(keys.status(document, generation)))
    else:
        manifest = Manifest.from_bytes(store.get(keys.manifest(document)))
        stored = stored_pages(store, document, generation)
        missing = sum(1 for page in manifest.pages() if page not in stored.terminal)
        if missing:
            log.warning("assembly.pages_missing", document=document, pages=missing)
            ledger.forget(document, generation)
            ledger.seed(document, generation, total=manifest.total, done=stored.done, failed=stored.failed)
            return None
        status = _write(store, manifest, stored, generation)
        if not store.create(keys.status(document, generation), status.to_bytes()):
            status = Status.from_bytes(store.get(keys.status(document, generation)))
    ledger.forget(document, generation)
    log.info(
        "assembly.document_ended",
        document=document,
        status=status.status,
        pages=status.total,
        failed=len(status.failures),
    )
    return status


def _write(store: ObjectStore, manifest: Manifest, stored: StoredPages, generation: int) -> Status:
    """Write all formats in one pass over the pages, with one page in memory at a time; return the status."""
    done = sum(1 for page in manifest.pages() if page in stored.done)
    outcome = _outcome(done, manifest.total)
    failures: list[Failure] = []
    review: list[ReviewPage] = []
    warnings: Counter[str] = Counter()
    blank = text_layer = figures = 0
    with scratch("ocrfleet-assembly-") as folder, ExitStack() as stack:
        paths = {extension: folder / extension for extension in WRITERS}
        files = {extension: stack.enter_context(path.open("w+b")) for extension, path in paths.items()}
        writers = [make(files[extension]) for extension, make in WRITERS.items()]
        for writer in writers:
            writer.begin(manifest, outcome)
        for result in _pages(store, manifest, stored, generation):
            blank += result.blank
            text_layer += result.text_layer and result.status is PageStatus.DONE and not result.rung
            figures += sum(1 for block in result.blocks if block.figure is not None)
            warnings.update({warning.code.value for warning in result.warnings})
            if result.status is PageStatus.FAILED and result.reason is not None:
                failures.append(Failure(page=result.page, reason=result.reason, detail=result.detail or ""))
            if result.review:
                doubt = ReviewPage(
                    page=result.page, confidence=result.confidence or 0.0, reason=result.review_reason or ""
                )
                review.append(doubt)
            for writer in writers:
                writer.page(result)
        outputs = {}
        for (extension, file), writer in zip(files.items(), writers, strict=True):
            writer.end()
            size = file.tell()
            file.seek(0)  # flushes, too
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            key = keys.output(manifest.document, generation, digest, extension)
            store.create_from(key, paths[extension])
            outputs[extension] = Output(key=key, sha256=digest, size=size)
    return Status(
        document=manifest.document,
        generation=generation,
        status=outcome,
        total=manifest.total,
        done=done,
        blank=blank,
        text_layer=text_layer,
        figures=figures,
        warnings=dict(sorted(warnings.items())),
        review=tuple(review),
        failures=tuple(failures),
        problem=manifest.problem,
        outputs=outputs,
    )


def _pages(store: ObjectStore, manifest: Manifest, stored: StoredPages, generation: int) -> Iterator[PageResult]:
    for page in manifest.pages():
        if page in stored.done:
            key = keys.page_done(manifest.document, page)
        else:
            key = keys.page_failed(manifest.document, page, generation)
        yield PageResult.from_bytes(store.get(key))


def _outcome(done: int, total: int) -> DocumentStatus:
    if total and done == total:
        return DocumentStatus.COMPLETED
    return DocumentStatus.PARTIAL if done else DocumentStatus.FAILED
