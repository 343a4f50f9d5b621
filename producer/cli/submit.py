"""`ocrfleet submit`: submits documents to a fleet."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ocrfleet.broker.ledger import Ledger
from ocrfleet.markdown.style import Tables
from ocrfleet.profiles.profile import Profile
from ocrfleet.records.base import digest_of
from ocrfleet.records.priority import Priority
from ocrfleet.s3.location import SCHEME
from ocrfleet.sources.sources import Sources
from ocrfleet.storage.open import open_store
from producer.cli import terminal
from producer.cli.options import (
    DEFAULT,
    FormatsOption,
    JoinHyphensOption,
    PdfText,
    PdfTextOption,
    TablesOption,
    read_formats,
    read_settings,
    read_submission_options,
    with_profile,
)
from producer.cli.render.documents import show_outcome
from producer.cli.render.estimate import show_estimate, submission_json
from producer.cli.render.progress import bar
from producer.delivery.webhook import CallbackError, check_url
from producer.documents.service import DocumentService
from producer.documents.wait import Outcome, wait_for
from producer.errors import UsageError
from producer.intake.batches import Count
from producer.intake.discover import Skipped
from producer.intake.estimate import ReadingSpeed, estimate_submission
from producer.intake.inspect import Intake
from producer.intake.local_files import list_files, submit_files
from producer.intake.page_ranges import parse_pages
from producer.state.profiles import save_profile
from producer.text import printable
from producer.triggers.filters import Filter, Prefix, apart_from_ours
from producer.triggers.s3_prefix import PrefixRegistration

if TYPE_CHECKING:
    from ocrfleet.records.submissions import SourceReference, SubmissionOptions
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

_EXIT_INCOMPLETE = 1


@with_profile
def submit(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Documents, folders of them, and [b]s3://bucket/prefix/[/] for all objects below it."),
    ],
    *,
    queue: Annotated[
        Priority, typer.Option(help="Priority: [b]interactive[/] documents are read before [b]bulk[/] ones.")
    ] = Priority.BULK,
    collection: Annotated[
        str | None, typer.Option(help="Collection of the documents; by default a name derived from INPUTS.")
    ] = None,
    results: Annotated[
        str | None,
        typer.Option(help="[b]s3://bucket/prefix/[/] to deliver outputs to, named after their source."),
    ] = None,
    formats: FormatsOption = DEFAULT,
    pdf_text: PdfTextOption = PdfText.REPLACE,
    tables: TablesOption = Tables.HTML,
    join_hyphens: JoinHyphensOption = False,
    callback: Annotated[str | None, typer.Option(help="URL that gets a signed POST when a document has ended.")] = None,
    pages: Annotated[
        str | None, typer.Option(help="Pages to read of each document, e.g. [b]3-10[/] or [b]1,5-[/].")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="For S3: no keys with this prefix.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until every source of the collection has ended and is delivered.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Estimate pages, hours and cost; submit nothing."),
    ] = False,
    chosen: Profile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Submit documents to a fleet: [b]ocrfleet dispatch[/] or [b]serve[/] registers them and has them read.

    Submitting twice is harmless: the same bytes are read once. Objects below an S3 prefix that were submitted before and did
    not change are left out, so the same command resumes an interrupted submission.

    [b]ocrfleet submit s3://archive/1890s/ --collection 1890s --results s3://texts/[/]

    Exit code: 0 submitted, or with --wait, every page done and delivered; 1 a file that was given can't be read, or with
    --wait, some page is not done; 2 usage; 3 the store is unreachable or misconfigured; 130 interrupted: the fleet goes on,
    and the same command waits again.
    """
    if wait and dry_run:
        raise UsageError("--wait and --dry-run don't go together: nothing is submitted that could be waited for")
    settings = read_settings()
    places = [Prefix.parse(place) for place in inputs if place.startswith(SCHEME)]
    wanted = apart_from_ours(Filter(exclude=tuple(exclude or ())), places, results=results, store=settings.store)
    files = [Path(path) for path in inputs if not path.startswith(SCHEME)]
    for path in files:
        if not path.exists():
            raise UsageError(f"there is no {path}")
    asked = [place if place.startswith(SCHEME) else str(Path(place).absolute()) for place in inputs]
    options = read_submission_options(
        profile_digest=chosen.digest,
        queue=queue,
        collection=collection or f"submit-{digest_of(*asked)[:12]}",
        selection=tuple(parse_pages(pages)) if pages else (),
        results=results,
        formats=read_formats(formats, pdf_text),
        tables=tables,
        join_hyphens=join_hyphens,
        callback=None if callback is None else _callback(callback, private=settings.webhook_private),
    )
    store = open_store(settings)
    prefixes = PrefixRegistration(store, options, wanted, settings.s3)
    count, skipped = Count(), list[Skipped]()
    if dry_run:
        sources = chain(*(prefixes.unknown(place, count) for place in places), list_files(files, count, skipped))
        _dry_run(
            sources, count, skipped, options=options, profile=chosen, store=store, settings=settings, as_json=as_json
        )
        return
    save_profile(store, chosen)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=terminal.console(stderr=True), transient=True) as progress:
        task = progress.add_task("searching")

        def show_count() -> None:
            progress.update(
                task,
                description=f"{count.seen} seen, {count.submitted} submitted, {count.known} known, {count.skipped} skipped",
            )

        for place in places:
            prefixes.register(place, count, progress=show_count)
        if files:
            skipped = submit_files(store, options, files, count, progress=show_count)
    if not count.seen:
        raise UsageError("no document was found in " + ", ".join(inputs))
    outcome = _waited(settings, store, options.collection) if wait else None
    _report(count, skipped, options.collection, outcome, as_json=as_json)
    if any(item.named for item in skipped) or (outcome is not None and not outcome.succeeded):
        sys.exit(_EXIT_INCOMPLETE)


def _callback(url: str, *, private: bool) -> str:
    try:
        return check_url(url, private=private)
    except CallbackError as error:
        raise UsageError(f"--callback: {error}") from error


def _dry_run(
    sources: Iterable[SourceReference],
    count: Count,
    skipped: Sequence[Skipped],
    *,
    options: SubmissionOptions,
    profile: Profile,
    store: ObjectStore,
    settings: Settings,
    as_json: bool,
) -> None:
    """Print the estimate of a submission; reading `sources` fills `count` and `skipped`."""
    intake = Intake(settings, None, Sources(settings, store))
    speed = ReadingSpeed.of_fleet(Ledger(settings.redis_url.get_secret_value()), settings, profile)
    try:
        estimate = estimate_submission(sources, options, intake, speed)
    finally:
        intake.close()
    price = settings.price_per_gpu_hour
    if as_json:
        terminal.echo(submission_json(estimate, known=count.known, skipped=count.skipped, price=price))
        return
    _show_skipped(skipped)
    show_estimate(
        estimate,
        skipped=count.skipped,
        workers=f"{speed.workers} workers"
        if speed.workers
        else f"one worker, as OCRFLEET_PAGES_PER_SECOND says: no worker serves {profile.name} now",
        ending=f"{count.known:,} more are known already. Nothing was submitted.",
        price=price,
    )


def _waited(settings: Settings, store: ObjectStore, collection: str) -> Outcome:
    """Wait for a collection; on Ctrl-C print that the fleet goes on."""
    service = DocumentService(store, Ledger(settings.redis_url.get_secret_value()), settings)
    console = terminal.console(stderr=True, soft_wrap=True)
    try:
        with bar(console) as show:
            return wait_for(service, collection, show)
    except SystemExit:  # by Ctrl-C
        console.print(
            f"No longer waiting; the fleet goes on. See: ocrfleet status --collection {collection}, or wait again with the "
            "same command."
        )
        raise
    finally:
        service.close()


def _report(
    count: Count, skipped: Sequence[Skipped], collection: str, outcome: Outcome | None, *, as_json: bool
) -> None:
    if as_json:
        facts: dict[str, Any] = {"collection": collection, "seen": count.seen, "submitted": count.submitted}
        facts |= {"known": count.known, "skipped": count.skipped}
        if outcome is not None:
            facts |= {
                "sources": dict(outcome.sources),
                "pages": outcome.pages,
                "pages_done": outcome.done,
                "pages_failed": outcome.failed,
                "undelivered": [left.model_dump(mode="json") for left in outcome.undelivered],
            }
        terminal.echo(json.dumps(facts))
        return
    _show_skipped(skipped)
    terminal.echo(
        f"{count.submitted} submitted, {count.known} known already, {count.skipped} skipped, of {count.seen} seen."
    )
    if outcome is not None:
        show_outcome(collection, outcome)
    terminal.echo(f"See their state: ocrfleet status --collection {collection}")


def _show_skipped(skipped: Sequence[Skipped]) -> None:
    for item in skipped:
        terminal.echo(f"skipped: {printable(item.name)}: {item.reason}", stderr=True)
