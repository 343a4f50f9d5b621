"""`ocrfleet report`: what became of every page, as report.html and report.csv."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.records.submissions import Submission
from ocrfleet.storage.open import open_store
from ocrfleet.storage.store import FolderStore
from producer.cli import terminal
from producer.cli.options import read_settings
from producer.cli.render.progress import bar
from producer.delivery.delivered_files import STATE_FOLDER
from producer.documents.collections import CollectionReader
from producer.documents.listing import check_collection
from producer.documents.lookup import Lookup
from producer.errors import UnanswerableError, UsageError
from producer.local.skipped import skipped_by
from producer.processes.thumbnailer import Thumbnailer
from producer.report.pages import Excluded
from producer.report.report import ReportOrder, check_target, write_report
from producer.text import printable

if TYPE_CHECKING:
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore
    from producer.documents.views import SourceRow
    from producer.report.summary import Summary


def report(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Output folder of [b]ocrfleet run[/].", show_default=False)
    ] = None,
    *,
    collection: Annotated[
        str | None, typer.Option("--collection", help="A collection of a fleet instead of a folder.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the report; by default the run's folder, or the current one.",
            show_default=False,
        ),
    ] = None,
    worst: Annotated[
        int, typer.Option("--worst", min=0, max=500, help="Pages that are shown with their image beside their text.")
    ] = 100,
    password_file: Annotated[
        Path | None, typer.Option(help="File with one password a line, for images of encrypted PDFs.")
    ] = None,
) -> None:
    """Report on quality: write report.html and report.csv, from what is stored. Nothing is read again.

    [b]report.html[/] opens in any browser, without a network: pages by status and reason, confidence, warnings, scripts and languages,
    throughput and cost, what was excluded and why, the worst pages with their images, and every page in a table to sort and filter.
    [b]report.csv[/] has a line for each page. Both may be written while a run goes on: pages that are not read yet are [b]open[/].

    [b]ocrfleet report out/[/]
    [b]ocrfleet report --collection 1890s --output reports/[/]

    Exit code: 0 written; 2 usage; 3 the store can't be reached.
    """
    if (folder is None) is (collection is None):
        raise UsageError("name an output folder of `ocrfleet run`, or a --collection: one of the two")
    settings = read_settings(password_file)
    if folder is not None:
        summary, order = _of_folder(folder, output, worst, settings)
    else:
        summary, order = _of_collection(collection or "", output, worst, settings)
    _show(summary, order)


def _of_folder(folder: Path, output: Path | None, worst: int, settings: Settings) -> tuple[Summary, ReportOrder]:
    state = folder / STATE_FOLDER
    if not (state / "store").is_dir():
        raise UsageError(f"{folder} is no output folder of `ocrfleet run`: it has no {STATE_FOLDER}/store")
    path = (state / "store").absolute()
    store = FolderStore(path)
    order = ReportOrder(title=folder.absolute().name, folder=output or folder, outputs=folder, worst=worst)
    skipped = [Excluded(name, "", f"skipped: {reason}") for name, reason in skipped_by(state)]
    local = settings.model_copy(update={"store": str(path)})
    return _write(order, store, local, store.folders("collections/"), skipped), order


def _of_collection(collection: str, output: Path | None, worst: int, settings: Settings) -> tuple[Summary, ReportOrder]:
    try:
        check_collection(collection)
    except UnanswerableError as error:
        raise UsageError(f"--collection: {error}") from error
    order = ReportOrder(title=collection, folder=output or Path(), outputs=None, worst=worst)
    return _write(order, open_store(settings), settings, [collection], []), order


def _write(
    order: ReportOrder, store: ObjectStore, settings: Settings, collections: Sequence[str], skipped: list[Excluded]
) -> Summary:
    check_target(order)
    console = terminal.console(stderr=True)
    log_file = order.outputs / STATE_FOLDER / "logs" / "report.log" if order.outputs is not None else None
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
    with closing(Lookup(store, None)) as lookup, closing(Thumbnailer(settings, log_file=log_file)) as thumbnailer:
        reader = CollectionReader(store, None, lookup, assumed_speed=settings.pages_per_second)
        rows: Iterable[SourceRow] = (row for collection in collections for row in reader.report(collection))
        if order.outputs is not None:
            rows = _standing(rows, store, collections)
        with bar(console) as progress:
            return write_report(order, store, rows, thumbnailer, excluded=skipped, progress=progress)


def _standing(rows: Iterable[SourceRow], store: ObjectStore, collections: Sequence[str]) -> Iterator[SourceRow]:
    """Yield the sources whose outputs are in the folder: of two documents with one name, the later one."""
    latest: dict[str, tuple[str, str]] = {}
    for collection in collections:
        for key in store.list(keys.submissions(collection)):
            with suppress(NotFoundError, DamagedRecordError):
                submission = Submission.from_bytes(store.get(key))
                mine = submission.submitted, submission.document
                latest[submission.name] = max(latest.get(submission.name, mine), mine)
    return (row for row in rows if row.document is None or latest.get(row.name, ("", row.document))[1] == row.document)


def _show(summary: Summary, order: ReportOrder) -> None:
    console = terminal.console(soft_wrap=True)
    counts = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in summary.states.most_common())
    console.print(f"{summary.pages} pages{f': {counts}' if counts else ''}; {summary.review} to look at.")
    terminal.echo(printable(str(order.html)))
    terminal.echo(printable(str(order.csv)))
