"""`ocrfleet status`, `results`, `retry`, `cancel`, `delete`, `pause`, `resume`, `purge`: the documents of a fleet."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import NotFoundError, OcrfleetError, TransientError
from ocrfleet.formats import DEFAULT_FORMATS
from ocrfleet.markdown.style import Style, Tables
from ocrfleet.records.documents import DocumentStatus
from ocrfleet.settings import Settings
from ocrfleet.storage.open import open_store
from producer.cli import terminal
from producer.cli.options import JoinHyphensOption, TablesOption, read_formats, read_settings
from producer.cli.render.documents import as_json_line, show_collection, show_document, write_csv
from producer.cli.status import show_status
from producer.delivery.to_folder import deliver
from producer.documents.retention import PurgeKind
from producer.documents.service import DocumentService
from producer.documents.views import State
from producer.errors import ConflictError, UnanswerableError, UsageError
from producer.processes.converter import Converter
from producer.text import printable, shown

_EXIT_INCOMPLETE = 1
_AGE = re.compile(r"(\d{1,5})([dhw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The document's id: 32 hexadecimal digits.")]
IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID…", help="The documents' ids: 32 hexadecimal digits each.")
]
CollectionOption = Annotated[str | None, typer.Option("--collection", help="All documents of a collection.")]
NamedCollectionOption = Annotated[str, typer.Option("--collection", help="Name of the collection.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON; for a collection, one line a source.")]


def status(
    document: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A document's id: 32 hexadecimal digits.")
    ] = None,
    *,
    collection: CollectionOption = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every source of the collection as CSV.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the state of a document, or of every source of a collection with an estimate of the time left.

    Without either: the workers of the fleet, the jobs that wait for each profile, and profiles that no worker serves.

    [b]ocrfleet status --collection 1890s --csv > 1890s.csv[/]
    """
    if document is not None and collection is not None:
        raise UsageError("a document or a collection: not both")
    if as_csv and (collection is None or as_json):
        raise UsageError("--csv is for --collection, and doesn't go with --json")
    settings = read_settings()
    if document is None and collection is None:
        show_status(settings, as_json=as_json)
        return
    with _asked(settings) as service:
        if document is not None:
            view = service.view(document)
            if as_json:
                terminal.echo(as_json_line(view))
            else:
                show_document(view)
        elif collection is not None:
            rows = service.collection_report(collection)
            if as_csv:
                write_csv(rows, sys.stdout.write)
            elif as_json:
                for row in rows:
                    terminal.echo(as_json_line(row))
            else:
                show_collection(collection, rows, service.when_done(collection), paused=collection in service.paused())


def results(
    document: IdArgument,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the outputs; made if it isn't there.")],
    formats: Annotated[
        str | None, typer.Option(help="Output formats, separated by commas; by default those of its latest submission.")
    ] = None,
    tables: TablesOption = Tables.HTML,
    join_hyphens: JoinHyphensOption = False,
) -> None:
    """Download the outputs of a document as OUTPUT/<name>.md and so on, named by its latest submission.

    Exit code: 0 every page done; 1 partial, failed or cancelled, or a format can't be written; 2 there is no such document, or it has not ended.
    """
    settings = read_settings()
    style = Style(tables=tables, join_hyphens=join_hyphens)
    chosen = None if formats is None else read_formats(formats)
    with _asked(settings) as service:
        ended = service.ended(document)
        names = service.view(document).names
        latest = max(names, key=lambda name: name.submitted, default=None)
        name = inside(latest.name if latest is not None else "") or document
        store = open_store(settings)
        with closing(Converter.of_fleet(settings, store, processes=1)) as converter:
            outputs = converter.outputs(ended, chosen or (latest.formats if latest is not None else DEFAULT_FORMATS))
        for path in deliver(store, ended, name=name, folder=output, outputs=outputs.made, style=style):
            terminal.echo(printable(str(path)))
    for format_name, why in outputs.refused.items():
        _errors().print(f"{format_name}: [red]{escape(printable(why))}[/]")
    if ended.status is not DocumentStatus.COMPLETED or outputs.refused:
        _errors().print(f"{ended.status}: {ended.done} of {ended.total} pages done. See: ocrfleet status {document}")
        sys.exit(_EXIT_INCOMPLETE)


def retry(documents: IdsArgument = None, *, collection: CollectionOption = None) -> None:
    """Retry pages that are not done: of documents, or of all incomplete documents of a collection.

    Exit code: 0 asked for; 1 some of them can't be tried again.
    """
    if bool(documents) is (collection is not None):
        raise UsageError("name documents by their ids, or a --collection: one of the two")
    with _asked(read_settings()) as service:

        def ask(document: str) -> str:
            retried = service.retry(document)
            if not retried.opened:
                raise ConflictError("every page is done already: nothing to try again")
            return f"its pages are tried again, as generation {retried.generation}"

        _each(documents if collection is None else _unfinished(service, collection or ""), ask)


def quarantine(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one line a page.")] = False
) -> None:
    """List the pages with which workers died, each alone in its worker then, with the diagnostics.

    Such a page is [b]failed[/] in its document and read no more. [b]ocrfleet retry ID[/] has it tried again.
    """
    console = terminal.console(soft_wrap=True)
    count = 0
    with _asked(read_settings()) as service:
        for page in service.quarantined():
            count += 1
            if as_json:
                terminal.echo(as_json_line(page))
                continue
            console.print(f"[b]{page.document}[/]  page {page.page}  {shown(page.uri)}")
            console.print(f"  {escape(printable(page.seen))}")
    if not count and not as_json:
        console.print("No page is in quarantine.")


def cancel(documents: Annotated[list[str], typer.Argument(metavar="ID…", help="The documents' ids.")]) -> None:
    """Cancel documents. Pages that are done are kept; ocrfleet retry resumes with the others.

    Exit code: 0 cancelled; 1 some of them had ended.
    """
    with _asked(read_settings()) as service:

        def ask(document: str) -> str:
            service.cancel(document)
            return "cancelled"

        _each(documents, ask)


def delete(
    documents: Annotated[list[str], typer.Argument(metavar="ID…", help="The documents' ids.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Delete documents with all that is stored of them, except their sources and delivered outputs.

    Exit code: 0 deleted; 1 some of them are not there.
    """
    _confirm(f"Delete {len(documents)} documents and their texts?", yes=yes)
    with _asked(read_settings()) as service:

        def ask(document: str) -> str:
            service.delete(document)
            return "deleted"

        _each(documents, ask)


def pause(*, collection: NamedCollectionOption) -> None:
    """Pause a collection: dispatch no more of its pages. Pages on the queue are still read."""
    with _asked(read_settings()) as service:
        service.pause(collection)
    terminal.echo(f"{collection} is paused. To resume: ocrfleet resume --collection {collection}")


def resume(*, collection: NamedCollectionOption) -> None:
    """Resume a paused collection."""
    with _asked(read_settings()) as service:
        service.resume(collection)
    terminal.echo(f"{collection} is resumed")


def purge(
    *,
    older_than: Annotated[
        str, typer.Option(help="Age since registration, in whole days (UTC): [b]30d[/], [b]4w[/], [b]48h[/].")
    ],
    what: Annotated[
        PurgeKind,
        typer.Option(
            help="[b]uploads[/]: uploaded files, once every document made of them has ended; [b]pages[/]: page "
            "records of completed documents (their outputs stay); [b]documents[/]: all that is stored of ended ones."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be deleted; delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Delete stored data of documents that ended and are older than this. For a timer, add --yes.

    Without its upload a document can't be tried again; sources that we only refer to are never touched.
    """
    age = read_age(older_than)
    if not dry_run:
        _confirm(f"Remove {what} of documents that ended and are older than {older_than}?", yes=yes)
    with _asked(read_settings()) as service:
        removed = service.purge(older_than=age, what=what, dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    objects = f", {removed.objects} objects" if what is not PurgeKind.DOCUMENTS else ""
    terminal.echo(f"{what} {verb}: {removed.documents} documents{objects}")
    if what is PurgeKind.DOCUMENTS and removed.documents and not dry_run:
        terminal.echo("Their objects are removed in the background, by ocrfleet serve or dispatch.")


def read_age(text: str) -> timedelta:
    """Return an age such as 30d, 4w or 48h. Raises UsageError."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise UsageError(f"--older-than {text!r}: write it like 30d, 4w or 48h")
    return int(match[1]) * _UNITS[match[2]]


def inside(name: str) -> str:
    """Return a name as a relative path that can't leave its folder; empty when no part of it is usable."""
    parts = (part for part in name.replace("\0", "").split("/") if part not in {"", ".", ".."})
    return "/".join(parts)


@contextmanager
def _asked(settings: Settings) -> Iterator[DocumentService]:
    """Yield the document service; errors about the request become UsageError."""
    service = DocumentService(open_store(settings), Ledger(settings.redis_url.get_secret_value()), settings)
    try:
        yield service
    except (NotFoundError, ConflictError, UnanswerableError) as error:
        raise UsageError(str(error)) from error
    finally:
        service.close()


def _each(documents: Iterable[str] | None, ask: Callable[[str], str]) -> None:
    """Do the same for each document, also after one failed; exit with 1 when one failed."""
    refused = 0
    for document in documents or ():
        try:
            terminal.echo(f"{printable(document)}: {ask(document)}")
        except TransientError:
            raise
        except OcrfleetError as error:
            refused += 1
            _errors().print(f"{shown(document)}: [red]{escape(printable(str(error)))}[/]")
    if refused:
        sys.exit(_EXIT_INCOMPLETE)


def _unfinished(service: DocumentService, collection: str) -> Iterator[str]:
    """Yield the incomplete documents of a collection that have ended."""
    for state in (State.PARTIAL, State.FAILED):
        after = None
        while True:
            found = service.documents(collection=collection, state=state, after=after, limit=100)
            # One that could not be taken in has no pages to try: its source must be submitted again.
            yield from (summary.id for summary in found.items if summary.problem is None)
            if found.next is None:
                break
            after = found.next


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal for the question: add --yes")
    typer.confirm(question, abort=True)


def _errors() -> Console:
    return terminal.console(stderr=True, soft_wrap=True)
