"""Assembly: writes a document's outputs from its stored pages, in order, then the status that names them.

The content comes from the store only. The same stored pages give the same bytes. Outputs are named by their content and the
status is created once, so a second assembly, at the same time or later, changes nothing that a reader has seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.formats import DEFAULT_FORMATS, FORMATS, FormatName
from ocrfleet.records.documents import Conversion, DocumentStatus, Failure, Manifest, ReviewPage, Status
from ocrfleet.records.pages import PageResult, PageStatus
from ocrfleet.records.submissions import Submission
from ocrfleet.storage.outputs import Outputs, outputs_of
from ocrfleet.storage.page_records import StoredPages, stored_pages
from worker.formats.output_files import written

if TYPE_CHECKING:
    from ocrfleet.broker.ledger import Ledger
    from ocrfleet.storage.store import ObjectStore
    from worker.formats.materials import Materials

log = structlog.get_logger(__name__)

#: Submissions of a document whose formats are written with it; those of others are made when they are delivered.
_SUBMISSIONS = 100


def assemble(materials: Materials, ledger: Ledger, document: str, generation: int) -> Status | None:
    """Write a document's outputs and its status, and return it; return None when pages have no record.

    The ledger is then seeded again from the store, so that the dispatcher publishes those pages: no page is left out. May be
    repeated. Raises NotFoundError for a document that was deleted, TransientError when the store or Redis can't be reached.
    """
    store = materials.store
    if store.exists(keys.status(document, generation)):
        status = Status.from_bytes(store.get(keys.status(document, generation)))
    else:
        manifest = Manifest.from_bytes(store.get(keys.manifest(document)))
        stored = stored_pages(store, document, generation)
        missing = _missing(manifest, stored)
        if missing:
            log.warning("assembly.pages_missing", document=document, pages=missing)
            ledger.forget(document, generation)
            ledger.seed(document, generation, total=manifest.total, done=stored.done, failed=stored.failed)
            return None
        status = _write(materials, manifest, stored, generation)
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


def convert(materials: Materials, document: str, generation: int, formats: Iterable[FormatName]) -> Outputs:
    """Write a document that has ended in further formats, from its stored pages; return all outputs in these formats.

    Formats that are there already are not written again; those that were refused are tried again. Raises NotFoundError for a
    document that has not ended or was deleted, and when its page records were purged; TransientError.
    """
    store, formats = materials.store, tuple(formats)
    status = Status.from_bytes(store.get(keys.status(document, generation)))
    made = outputs_of(store, status, formats).made
    missing = tuple(name for name in formats if name not in made)
    if not missing:
        return Outputs(made)
    if status.status is DocumentStatus.CANCELLED:
        raise NotFoundError(f"document {document} was cancelled, so it has no outputs; `ocrfleet retry` resumes it")
    manifest = Manifest.from_bytes(store.get(keys.manifest(document)))
    stored = stored_pages(store, document, generation)
    if lost := _missing(manifest, stored):
        raise NotFoundError(
            f"document {document} can't be written as {', '.join(missing)}: {lost} of its page records were removed "
            "(`ocrfleet purge`)"
        )
    pages = _pages(store, manifest, stored, generation)
    outputs = written(materials, manifest, generation, status.status, formats=missing, pages=pages)
    for name, output in outputs.made.items():
        store.put(keys.conversion(document, generation, name), Conversion(output=output).to_bytes())
    for name, detail in outputs.refused.items():
        store.put(keys.conversion(document, generation, name), Conversion(refused=detail).to_bytes())
    log.info("assembly.document_converted", document=document, formats=missing, refused=list(outputs.refused))
    return Outputs(made | outputs.made, outputs.refused)


def _missing(manifest: Manifest, stored: StoredPages) -> int:
    """Return the number of pages without a record."""
    return sum(1 for page in manifest.pages() if page not in stored.terminal)


def _write(materials: Materials, manifest: Manifest, stored: StoredPages, generation: int) -> Status:
    """Write all formats in one pass over the pages, with one page in memory at a time; return the status."""
    done = sum(1 for page in manifest.pages() if page in stored.done)
    outcome = _outcome(done, manifest.total)
    failures: list[Failure] = []
    review: list[ReviewPage] = []
    warnings: Counter[str] = Counter()
    blank = text_layer = figures = 0

    def counted() -> Iterator[PageResult]:
        nonlocal blank, text_layer, figures
        for result in _pages(materials.store, manifest, stored, generation):
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
            yield result

    formats = dict.fromkeys((*DEFAULT_FORMATS, *_wanted(materials.store, manifest.document)))
    outputs = written(materials, manifest, generation, outcome, formats=formats, pages=counted())
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
        outputs=outputs.made,
        refused=outputs.refused or None,
    )


def _wanted(store: ObjectStore, document: str) -> list[FormatName]:
    """Return the formats that the document's submissions ask for, in the order of the catalogue."""
    wanted: set[str] = set()
    for key in islice(store.list(keys.wanted_by(document)), _SUBMISSIONS):
        try:
            wanted.update(Submission.from_bytes(store.get(key)).terms.formats)
        except (NotFoundError, DamagedRecordError) as error:
            log.warning("assembly.submission_skipped", document=document, error=str(error))
    return [name for name in FORMATS if name in wanted]


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
