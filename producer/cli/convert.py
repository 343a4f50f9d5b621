"""`ocrfleet convert`: writes ended documents in further formats, from their stored pages."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, OcrfleetError
from ocrfleet.formats import stored_formats
from ocrfleet.markdown.style import Style, Tables
from ocrfleet.records.submissions import Submission
from ocrfleet.storage.open import open_store
from ocrfleet.storage.store import FolderStore
from producer.cli import terminal
from producer.cli.options import (
    FormatsOption,
    JoinHyphensOption,
    PdfText,
    PdfTextOption,
    TablesOption,
    read_formats,
    read_settings,
)
from producer.delivery.delivered_files import STATE_FOLDER
from producer.delivery.earlier_outputs import DocumentsByName
from producer.delivery.to_folder import deliver
from producer.delivery.to_s3 import S3Delivery
from producer.errors import EXIT_INCOMPLETE, UsageError
from producer.local.run import locked
from producer.processes.converter import Converter
from producer.state.statuses import latest_status
from producer.text import printable, shown

if TYPE_CHECKING:
    from ocrfleet.formats import FormatName
    from ocrfleet.records.documents import Status
    from ocrfleet.settings import Settings
    from ocrfleet.storage.outputs import Outputs
    from ocrfleet.storage.store import ObjectStore

#: Number of documents submitted to the converter ahead of delivery, per process.
_AHEAD = 2

#: Delivers the outputs of a document; returns the lines to print.
Deliver = Callable[[Submission, "Status", "Outputs"], Iterable[str]]


def convert(
    documents: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FOLDER|ID…]", help="Output folder of [b]ocrfleet run[/], or ids of a fleet's documents."
        ),
    ] = None,
    *,
    formats: FormatsOption,
    pdf_text: PdfTextOption = PdfText.REPLACE,
    collection: Annotated[
        str | None, typer.Option("--collection", help="All documents of a collection of a fleet.")
    ] = None,
    tables: TablesOption = Tables.HTML,
    join_hyphens: JoinHyphensOption = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes; by default one for each core.")
    ] = None,
) -> None:
    """Write ended documents in further formats, from their stored pages, without OCR.

    For an output folder, the new outputs are written into it. For documents of a fleet, the outputs are stored in the fleet's store
    (for the API and [b]ocrfleet results[/]), and delivered if the documents were submitted with --results.

    [b]ocrfleet convert out/ --formats docx,txt[/]

    Exit code: 0 every document is converted; 1 a document could not be converted in every format; 2 usage.
    """
    if bool(documents) is (collection is not None):
        raise UsageError("name an output folder, documents by their ids, or a --collection: one of the three")
    chosen = read_formats(formats, pdf_text)
    settings = read_settings()
    processes = workers or len(os.sched_getaffinity(0))
    style = Style(tables=tables, join_hyphens=join_hyphens)
    if documents is not None and len(documents) == 1 and Path(documents[0]).is_dir():
        complete = _in_folder(Path(documents[0]), settings, chosen, style, processes)
    else:
        complete = _in_fleet(documents or (), collection, settings, formats=chosen, style=style, processes=processes)
    if not complete:
        sys.exit(EXIT_INCOMPLETE)


def _in_folder(folder: Path, settings: Settings, formats: Sequence[FormatName], style: Style, processes: int) -> bool:
    """Convert the documents of an output folder and write the outputs into it."""
    if not (folder / STATE_FOLDER / "store").is_dir():
        raise UsageError(f"{folder} is no output folder of `ocrfleet run`: it has no {STATE_FOLDER}/store")
    with locked(folder):
        path = (folder / STATE_FOLDER / "store").absolute()
        store = FolderStore(path)
        named = DocumentsByName(store)
        converter = Converter.of_fleet(
            settings.model_copy(update={"store": str(path)}),
            store,
            processes=processes,
            log_file=folder / STATE_FOLDER / "logs" / "converter.log",
        )

        def write(submission: Submission, status: Status, outputs: Outputs) -> Iterator[str]:
            for target in deliver(
                store, status, name=submission.name, folder=folder, outputs=outputs.made, style=style, named=named
            ):
                yield str(target)

        with closing(converter):
            return _Conversion(store, converter, formats, processes, write).run(_latest_by_name(store))


def _in_fleet(
    documents: Sequence[str],
    collection: str | None,
    settings: Settings,
    *,
    formats: Sequence[FormatName],
    style: Style,
    processes: int,
) -> bool:
    """Convert documents of a fleet; deliver the outputs of submissions with --results."""
    store = open_store(settings)
    delivery = S3Delivery(store, settings.s3)

    def write(submission: Submission, status: Status, outputs: Outputs) -> Iterator[str]:
        yield f"{status.document}: {', '.join(outputs.made)}"
        if submission.terms.results is None:
            return
        options = submission.terms.model_copy(
            update={
                "formats": stored_formats(formats),
                "tables": None if style.tables is Tables.HTML else style.tables,
                "join_hyphens": style.join_hyphens or None,
            }
        )
        delivery.deliver(status, submission.model_copy(update={"terms": options}))
        yield f"{submission.terms.results}{submission.name}"

    with closing(Converter.of_fleet(settings, store, processes=processes)) as converter:
        submissions = (
            _of_prefix(store, keys.submissions(collection))
            if collection is not None
            else (found for document in documents for found in _of_document(store, document))
        )
        return _Conversion(store, converter, formats, processes, write).run(submissions)


@dataclass
class _Conversion:
    """Converts several documents at the same time, and delivers them in order."""

    store: ObjectStore
    converter: Converter
    formats: Sequence[FormatName]
    processes: int
    deliver: Deliver
    complete: bool = True

    def run(self, submissions: Iterable[Submission]) -> bool:
        """Return whether every document is converted to every format."""
        begun: deque[tuple[Submission, Status, Future[Outputs]]] = deque()
        found = False
        for submission in submissions:
            found = True
            try:
                status = latest_status(self.store, submission.document)
            except DamagedRecordError as error:
                self._failed(submission, str(error))
                continue
            if status is None:
                self._failed(submission, "it has not ended yet")
                continue
            begun.append((submission, status, self.converter.begin(status, self.formats, retry_refused=True)))
            if len(begun) > _AHEAD * self.processes:
                self._finish(*begun.popleft())
        while begun:
            self._finish(*begun.popleft())
        if not found:
            raise UsageError("there is no document to convert")
        return self.complete

    def _finish(self, submission: Submission, status: Status, begun: Future[Outputs]) -> None:
        try:
            outputs = begun.result()
            for name, why in outputs.refused.items():
                self._failed(submission, f"{name}: {why}")
            for line in self.deliver(submission, status, outputs):
                terminal.echo(printable(line))
        except OcrfleetError as error:
            self._failed(submission, str(error))

    def _failed(self, submission: Submission, why: str) -> None:
        self.complete = False
        terminal.console(stderr=True, soft_wrap=True).print(
            f"{shown(submission.name)} ({submission.document}): [red]{escape(printable(why))}[/]"
        )


def _latest_by_name(store: ObjectStore) -> Iterable[Submission]:
    """Return the latest submission of each name."""
    latest: dict[str, Submission] = {}
    for collection in store.folders("collections/"):
        for submission in _of_prefix(store, keys.submissions(collection)):
            before = latest.get(submission.name)
            if before is None or before.submitted <= submission.submitted:
                latest[submission.name] = submission
    return latest.values()


def _of_document(store: ObjectStore, document: str) -> list[Submission]:
    """Return the submissions of a document. Raises UsageError if the document does not exist."""
    try:
        keys.document_in(keys.manifest(document).removesuffix("/manifest.json"))
        found = list(_of_prefix(store, keys.wanted_by(document)))
    except ValueError:
        found = []
    if not found:
        raise UsageError(f"there is no document {printable(document)}: an id is 32 digits of 0-9 and a-f")
    return found


def _of_prefix(store: ObjectStore, prefix: str) -> Iterator[Submission]:
    for key in store.list(prefix):
        with suppress(NotFoundError, DamagedRecordError):
            yield Submission.from_bytes(store.get(key))
