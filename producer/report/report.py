"""Writes the quality report. Reads every page once; keeps only numbers and the worst pages in memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ocrfleet.durable import new_file
from ocrfleet.errors import DamagedRecordError, NotFoundError
from producer.documents.lookup import Lookup
from producer.errors import UsageError
from producer.processes.thumbnailer import Thumbnailer
from producer.report.csv_file import HEADER, CsvReport
from producer.report.html_file import MARK, Content, ListedDocument, ShownPage, write_html
from producer.report.links import original_links, text_link
from producer.report.pages import Excluded, PageReader, Reported, documents_of
from producer.report.summary import Summary
from producer.report.table import Table
from producer.report.worst import WorstPages

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore
    from producer.documents.views import SourceRow

#: Longer side of a thumbnail in pixels: the text of a letter is just legible.
_SIDE = 720
#: Maximum size of all thumbnails in bytes: a browser still opens the file quickly.
_MOST_IMAGE_BYTES = 24 << 20

#: Text, done part, total.
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOrder:
    """Options of a report."""

    title: str
    #: folder of the report
    folder: Path
    #: folder with the delivered outputs of a run; None for a fleet
    outputs: Path | None
    #: pages that are shown with image and text
    worst: int

    @property
    def html(self) -> Path:
        return self.folder / "report.html"

    @property
    def csv(self) -> Path:
        return self.folder / "report.csv"


def write_report(
    order: ReportOrder,
    store: ObjectStore,
    rows: Iterable[SourceRow],
    thumbnailer: Thumbnailer,
    *,
    excluded: Iterable[Excluded] = (),
    progress: Progress,
) -> Summary:
    """Write report.html and report.csv, and return the counts.

    Raises UsageError if there are no documents or the files can't be written, TransientError if the store is unreachable.
    """
    check_target(order)
    documents, without = documents_of(rows)
    without += excluded
    if not documents and not without:
        raise UsageError("there is no document to report")
    builder = _Builder(store, order)
    with contextlib.closing(builder.lookup), _written(order.csv) as out:
        csv = CsvReport(out)
        total = sum(document.pages for document in documents)
        for document in documents:
            builder.add(document, csv, lambda done: progress(f"{done} of {total} pages", done, total))
        builder.excluded += without
        for source in builder.excluded:
            csv.excluded(source)
    worst = list(_pictures(builder, thumbnailer, progress))
    content = Content(
        title=order.title,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        fleet=order.outputs is None,
        summary=builder.summary,
        table=builder.table,
        documents=builder.documents,
        excluded=builder.excluded,
        worst=worst,
    )
    with _written(order.html) as out:
        write_html(content, out)
    return builder.summary


def check_target(order: ReportOrder) -> None:
    """Raise UsageError if another file, such as the output of a document, has the name of the report."""
    for path, beginning in ((order.html, MARK), (order.csv, HEADER[0] + "," + HEADER[1])):
        if path.is_file():
            with path.open("rb") as there:
                if beginning.encode() not in there.read(2000):
                    raise UsageError(f"{path} is there and is no report: name another folder with --output")


class _Builder:
    """Collects numbers and the worst pages, document by document."""

    def __init__(self, store: ObjectStore, order: ReportOrder) -> None:
        self.lookup = Lookup(store, None)
        self.summary, self.table, self.worst = Summary(), Table(), WorstPages(order.worst)
        self.documents: list[ListedDocument] = []
        self.excluded: list[Excluded] = []
        self._reader = PageReader(store, self.lookup)
        self._order = order

    def add(self, document: Reported, csv: CsvReport, show: Callable[[int], None]) -> None:
        """Add a document with its pages."""
        try:
            manifest = self.lookup.manifest(document.document)
        except (NotFoundError, DamagedRecordError) as error:
            self.excluded.append(Excluded(document.name, document.uri, str(error)))
            return
        number = len(self.documents)
        link = text_link(document.name, self._order.outputs, self._order.folder)
        self.documents.append(ListedDocument(document, link, original_links(manifest)))
        self.summary.documents[document.state] += 1
        if manifest.problem is not None:
            self.excluded.append(
                Excluded(document.name, document.uri, f"{manifest.problem.reason}: {manifest.problem.detail}")
            )
            return
        runs = self._reader.runs(document.document)
        self.summary.add_runs(runs)
        for page in self._reader.pages(manifest, document.state, runs):
            csv.page(document, page)
            self.worst.add(len(self.table), document.document, page)
            self.table.add(number, page)
            self.summary.add(page)
            show(len(self.table))


def _pictures(builder: _Builder, thumbnailer: Thumbnailer, progress: Progress) -> Iterator[ShownPage]:
    """Yield the worst pages with their images, up to the maximum size of images."""
    pages = builder.worst.ordered()
    size = 0
    for number, page in enumerate(pages):
        progress(f"{number} of {len(pages)} images", number, len(pages))
        if size > _MOST_IMAGE_BYTES:
            yield ShownPage(page, None, "left out: the file has as many images as a browser opens easily")
            continue
        answer = thumbnailer.thumbnail(page.document, page.page, side=_SIDE)
        size += len(answer.jpeg or "")
        yield ShownPage(page, answer.jpeg, answer.why)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    """Open a file that is renamed to its path when the block ends. Raises UsageError if it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path.parent) as (aside, file):
            # File names may contain bytes that are not valid UTF-8.
            with io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="") as out:
                yield out
            Path(aside).replace(path)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from error
