"""`ocrfleet watch`: submits objects when they are uploaded to buckets."""

from __future__ import annotations

import functools
import queue
import signal
from contextlib import ExitStack
from typing import Annotated

import typer

from ocrfleet import logs
from ocrfleet.markdown.style import Tables
from ocrfleet.metrics import definitions as metrics
from ocrfleet.metrics.exposition import Exposition, served
from ocrfleet.profiles.profile import Profile
from ocrfleet.records.priority import Priority
from ocrfleet.storage.open import open_store
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
from producer.errors import UsageError
from producer.intake.discover import SUFFIXES
from producer.state.profiles import save_profile
from producer.triggers.filters import Filter, Prefix, apart_from_ours
from producer.triggers.sqs import SqsWatcher, sqs_client
from producer.triggers.watcher import PrefixWatcher, Watch, Watcher, run_all

_WHAT = "Buckets"
_WANTED = "Filters"


@with_profile
def watch(
    *,
    sqs: Annotated[
        list[str] | None,
        typer.Option(
            help="URL of an SQS queue with a bucket's events, directly or through SNS or EventBridge.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    dead_letters: Annotated[
        str | None,
        typer.Option(
            help="URL of the queue for messages that are no events; by default the one in the queue's redrive policy.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    poll: Annotated[
        list[str] | None,
        typer.Option(
            help="[b]s3://bucket/prefix/[/] to list periodically, in a store without events.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    every: Annotated[
        float, typer.Option(min=1, help="Seconds between two listings of a polled prefix.", rich_help_panel=_WHAT)
    ] = 60,
    reconcile: Annotated[
        list[str] | None,
        typer.Option(
            help="[b]s3://bucket/prefix/[/] to list in full at long intervals, in case events were lost. Polled prefixes "
            "are reconciled, too.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    reconcile_every: Annotated[
        float, typer.Option(min=1, help="Seconds between two reconciliations.", rich_help_panel=_WHAT)
    ] = 3600,
    results: Annotated[
        str | None,
        typer.Option(help="[b]s3://bucket/prefix/[/] to deliver outputs to, named after their source."),
    ] = None,
    formats: FormatsOption = DEFAULT,
    pdf_text: PdfTextOption = PdfText.REPLACE,
    tables: TablesOption = Tables.HTML,
    join_hyphens: JoinHyphensOption = False,
    work_queue: Annotated[
        Priority, typer.Option("--queue", help="Priority: [b]interactive[/] documents are read before [b]bulk[/] ones.")
    ] = Priority.BULK,
    collection: Annotated[str, typer.Option(help="Collection of the documents.")] = "inbox",
    prefix: Annotated[
        list[str] | None, typer.Option(help="Only keys with this prefix, e.g. [b]1890s/[/].", rich_help_panel=_WANTED)
    ] = None,
    suffix: Annotated[
        list[str] | None,
        typer.Option(
            help="Only keys with this suffix; by default those of all supported formats.", rich_help_panel=_WANTED
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="No keys with this prefix, e.g. [b]inbox/drafts/[/].", rich_help_panel=_WANTED),
    ] = None,
    chosen: Profile,
) -> None:
    """Submit objects that are uploaded to buckets: by events, by listing, or both. Several may run at once.

    An event is deleted from its queue only after its object is stored as submitted. A repeated event is harmless.

    [b]ocrfleet watch --sqs https://sqs.eu-west-1.amazonaws.com/123456789012/uploads --reconcile s3://inbox/ --results s3://out/[/]

    Exit code: 0 stopped by SIGTERM or Ctrl-C; 2 usage; 3 a queue or a bucket is misconfigured.
    """
    settings = read_settings()
    if not (sqs or poll or reconcile):
        raise UsageError("nothing to watch: give --sqs, --poll or --reconcile")
    polled = {Prefix.parse(place) for place in poll or ()}
    reconciled = {Prefix.parse(place) for place in reconcile or ()} - polled
    wanted = apart_from_ours(
        Filter(prefixes=tuple(prefix or ()), suffixes=tuple(suffix or SUFFIXES), exclude=tuple(exclude or ())),
        (*polled, *reconciled),
        results=results,
        store=settings.store,
    )
    terms = read_submission_options(
        profile_digest=chosen.digest,
        queue=work_queue,
        collection=collection,
        results=results,
        formats=read_formats(formats, pdf_text),
        tables=tables,
        join_hyphens=join_hyphens,
    )
    logs.configure(settings.log_level)
    store = open_store(settings)
    save_profile(store, chosen)
    for source, places in (("sqs", sqs), ("poll", polled), ("reconcile", reconciled)):
        if places:
            metrics.WATCH_LAST_SUCCESS.labels(source).set_to_current_time()
            for outcome in metrics.OUTCOMES:
                metrics.EVENTS.labels(source, outcome)
    with ExitStack() as stack:
        stack.enter_context(served(Exposition(settings), settings))
        watcher = stack.enter_context(Watcher(store, terms, wanted, settings.s3))
        watches: list[Watch] = []
        for url in sqs or ():
            client = sqs_client(url, settings.s3)
            stack.callback(client.close)
            register = functools.partial(watcher.register, source="sqs")
            watches.append(SqsWatcher(client, url, register, dead_letter_url=dead_letters))
        watches += [PrefixWatcher(watcher, place, every=every, whole_every=reconcile_every) for place in polled]
        watches += [
            PrefixWatcher(watcher, place, every=reconcile_every, whole_every=reconcile_every, source="reconcile")
            for place in reconciled
        ]
        run_all(watches, _stop_signal())


def _stop_signal() -> queue.SimpleQueue[None]:
    """Return a queue that gets an item on SIGTERM or Ctrl-C. A second signal ends the process at once."""
    stopped: queue.SimpleQueue[None] = queue.SimpleQueue()

    def stop(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # The one primitive for waiting that is safe in a signal handler.
        stopped.put(None)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return stopped
