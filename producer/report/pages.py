"""Reads the data of the report from a store: manifests, page records, run records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.records.pages import PageResult, PageStatus
from ocrfleet.records.runs import RunRecord
from producer.documents.views import OPEN, State
from producer.report.language import script_and_language

if TYPE_CHECKING:
    from ocrfleet.records.documents import Manifest
    from ocrfleet.storage.store import ObjectStore
    from producer.documents.lookup import Lookup
    from producer.documents.views import SourceRow

#: Number of records in one batch.
_AT_ONCE = 256

_ITEM = TypeVar("_ITEM")


class PageState(StrEnum):
    DONE = "done"
    FAILED = "failed"
    #: not read yet
    OPEN = "open"
    #: the document has ended, and the record was purged or is damaged
    NO_RECORD = "no_record"


@dataclass(slots=True)
class Reported:
    """A document in the report. Several sources may be the same document: its pages are reported once."""

    document: str
    name: str
    uri: str
    state: State
    #: pages, as the listing of sources gives them: for progress only
    pages: int
    #: further names of the same document
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Excluded:
    """A source without pages in the report, or a part of one that could not be read, with the reason."""

    name: str
    uri: str
    why: str


@dataclass(slots=True)
class Effort:
    """Cost of all attempts at a page, over all generations."""

    attempts: int = 0
    render_seconds: float = 0.0
    recognise_seconds: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedPage:
    """A page in the report."""

    page: int
    state: PageState
    reason: str = ""
    #: why it failed or is marked for review
    detail: str = ""
    confidence: float | None = None
    blank: bool = False
    text_layer: bool = False
    review: bool = False
    warnings: tuple[str, ...] = ()
    warning_details: tuple[str, ...] = ()
    script: str = ""
    language: str = ""
    words: int = 0
    engine: str = ""
    model: str = ""
    effort: Effort = field(default_factory=Effort)
    text: str = ""


@dataclass(slots=True)
class Runs:
    """Run records of a document: cost of each page, and numbers of ended pages over time."""

    efforts: dict[int, Effort] = field(default_factory=dict)
    #: Unix time, number of pages
    finished: list[tuple[float, int]] = field(default_factory=list)
    workers: set[str] = field(default_factory=set)


class PageReader:
    """Reads pages from a store, several at a time. Each call may raise TransientError."""

    def __init__(self, store: ObjectStore, lookup: Lookup) -> None:
        self._store = store
        self._lookup = lookup

    def runs(self, document: str) -> Runs:
        """Return the run records of a document, without damaged ones."""
        runs = Runs()
        for batch in _batches(self._store.list(f"{keys.document(document)}runs/"), _AT_ONCE):
            for record in self._lookup.each(self._run, batch):
                if record is None:
                    continue
                runs.workers.add(record.worker)
                runs.finished.append((record.finished, len({attempt.page for attempt in record.attempts})))
                for attempt in record.attempts:
                    effort = runs.efforts.setdefault(attempt.page, Effort())
                    effort.attempts += 1
                    effort.render_seconds += attempt.render_seconds or 0.0
                    effort.recognise_seconds += attempt.recognise_seconds or 0.0
                    effort.tokens += attempt.tokens or 0
        return runs

    def pages(self, manifest: Manifest, state: State, runs: Runs) -> Iterator[ReportedPage]:
        """Yield every page of a document, in order. Keeps one batch in memory."""
        records = self._records(manifest.document)
        for batch in _batches(manifest.pages(), _AT_ONCE):
            found = self._lookup.each(self._result, [records.get(page) for page in batch])
            for page, result in zip(batch, found, strict=True):
                effort = runs.efforts.get(page, Effort())
                if isinstance(result, PageResult):
                    yield _reported(result, effort)
                elif page in records:
                    detail = result if isinstance(result, str) else "the record was removed meanwhile"
                    yield ReportedPage(page=page, state=PageState.NO_RECORD, detail=detail, effort=effort)
                elif state in OPEN or state is State.CANCELLED:
                    yield ReportedPage(page=page, state=PageState.OPEN, effort=effort)
                else:
                    purged = "the page's record was purged"
                    yield ReportedPage(page=page, state=PageState.NO_RECORD, detail=purged, effort=effort)

    def _records(self, document: str) -> dict[int, str]:
        """Return the key of the record that applies to each page: done, else the failure of the latest generation."""
        found: dict[int, tuple[int, str]] = {}
        for key in self._store.list(keys.pages(document)):
            page, failed_in = keys.parse_page(key)
            rank = failed_in if failed_in is not None else 1 << 30
            if page not in found or found[page][0] < rank:
                found[page] = rank, key
        return {page: key for page, (_, key) in found.items()}

    def _result(self, key: str | None) -> PageResult | str | None:
        """Return the record of a page; the error if it can't be read; None if it was removed."""
        if key is None:
            return None
        try:
            return PageResult.from_bytes(self._store.get(key))
        except NotFoundError:
            return None
        except DamagedRecordError as error:
            return str(error)

    def _run(self, key: str) -> RunRecord | None:
        with suppress(NotFoundError, DamagedRecordError):
            return RunRecord.from_bytes(self._store.get(key))
        return None


def documents_of(rows: Iterable[SourceRow]) -> tuple[list[Reported], list[Excluded]]:
    """Return the documents among the sources, each once, and the sources that have no document."""
    documents: dict[str, Reported] = {}
    excluded: list[Excluded] = []
    why = {State.ARRIVING: "it waits for intake: its pages are not known yet", State.DELETED: "it was deleted"}
    for row in rows:
        if row.document is None or row.state in {State.DELETED, State.DAMAGED}:
            excluded.append(Excluded(row.name, row.uri, row.reasons or why.get(row.state, str(row.state))))
        elif row.document in documents:
            documents[row.document].others.append(row.name)
        else:
            documents[row.document] = Reported(row.document, row.name, row.uri, row.state, row.total)
    return sorted(documents.values(), key=lambda one: one.name), excluded


def _reported(result: PageResult, effort: Effort) -> ReportedPage:
    failed = result.status is PageStatus.FAILED
    script, language = script_and_language(result.text)
    return ReportedPage(
        page=result.page,
        state=PageState.FAILED if failed else PageState.DONE,
        reason=str(result.reason or "") if failed else "",
        detail=(result.detail if failed else result.review_reason) or "",
        confidence=result.confidence,
        blank=result.blank,
        text_layer=result.text_layer,
        review=result.review,
        warnings=tuple(sorted({warning.code.value for warning in result.warnings})),
        warning_details=tuple(warning.detail for warning in result.warnings),
        script=script,
        language=language,
        words=len(result.text.split()),
        engine=result.engine_version or result.engine,
        model=result.model,
        effort=effort,
        text=result.text,
    )


def _batches(items: Iterable[_ITEM], size: int) -> Iterator[list[_ITEM]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
