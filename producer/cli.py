"""The command line: one function for each command."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ocrfleet import logs
from ocrfleet.errors import ConfigurationError, OcrfleetError
from ocrfleet.markdown.style import Style, Tables
from ocrfleet.profiles.profile import Profile
from ocrfleet.settings import Settings
from producer import show
from producer.catalogue import show_models
from producer.commands import documents
from producer.commands.dispatch import dispatch
from producer.commands.serve import serve
from producer.commands.submit import submit
from producer.commands.sweep import sweep
from producer.commands.top import top
from producer.commands.watch import watch
from producer.discover import UsageError, check_inputs
from producer.estimate import estimate
from producer.options import (
    BaseUrlOption,
    JoinHyphensOption,
    TablesOption,
    parse_pages,
    read_group,
    read_settings,
    with_profile,
)
from producer.report import Report
from producer.run import Order, Run, locked
from producer.samples import write_samples
from producer.speed import show_speed, speed
from producer.supervise import supervise
from producer.workers import default_workers, grouped, read_gpus

EXIT_DONE, EXIT_INCOMPLETE, EXIT_USAGE, EXIT_UNABLE = 0, 1, 2, 3

WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Worker processes; by default one for each GPU, or for each core without one."),
]

_HERE, _FLEET, _DOCUMENTS = "On this machine", "A fleet", "Documents of a fleet"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Turn scanned documents into text: page jobs on a Redis queue, read by a fleet of OCR workers.",
)


def main() -> None:
    """Run the command line; every error that we foresaw is one clear line and an exit code."""
    console = Console(stderr=True)
    signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))
    try:
        app()
    except UsageError as error:
        console.print(f"[red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_USAGE)
    except ConfigurationError as error:
        console.print(f"[red]Can't start:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_UNABLE)
    except OcrfleetError as error:
        console.print(f"[red]Stopped:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_UNABLE)


@app.callback(invoke_without_command=True)
def options(
    *, show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> None:
    if show_version:
        typer.echo(f"ocrfleet {version('ocrfleet')}")
        raise typer.Exit


@app.command(rich_help_panel=_HERE)
@with_profile
def run(
    inputs: Annotated[
        list[Path], typer.Argument(help="PDFs, images (PNG, JPEG, TIFF, WebP, BMP, JPEG 2000), and folders of them.")
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for the text; its .ocrfleet keeps the state that makes a run resumable."
        ),
    ],
    chosen: Profile,
    base_url: BaseUrlOption = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="[b]folder[/]: the images of a folder, in natural order, are one document.", metavar="folder"
        ),
    ] = None,
    pages: Annotated[
        str | None, typer.Option(help="Pages to read of each document, e.g. [b]3-10[/] or [b]1,5-[/].")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with one password a line, tried on encrypted PDFs.")
    ] = None,
    workers: WorkersOption = None,
    tables: TablesOption = Tables.HTML,
    join_hyphens: JoinHyphensOption = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try pages again that failed in an earlier run.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON summary instead of tables.")] = False,
) -> None:
    """Read documents on this machine: no server needed.

    Writes [b]OUTPUT/<path>.md[/] and [b]OUTPUT/<path>.json[/] for each document. Interrupted, or killed, the same command goes on
    where it stopped. A page that fails has its place in the text, and its reason at the end.

    [b]ocrfleet run scans/ more.pdf --output out/[/]

    Exit code: 0 every page done; 1 some document partial or failed; 2 usage; 3 could not run; 130 interrupted.
    """
    settings = read_settings(password_file, base_url)
    order = Order(
        inputs=tuple(inputs),
        output=output,
        profile=chosen,
        selection=parse_pages(pages) if pages else (),
        group_folders=read_group(group),
        retry_failed=retry_failed,
        workers=workers or default_workers(chosen, settings),
        style=Style(tables=tables, join_hyphens=join_hyphens),
    )
    if dry_run:
        sys.exit(estimate(order, settings, as_json=as_json))
    result = carry_out(order, settings)
    if as_json:
        typer.echo(show.summary(result))
    else:
        show.report(Console(highlight=False, soft_wrap=True), result, output)
    sys.exit(exit_code(result, order))


def carry_out(order: Order, settings: Settings) -> Report:
    """Run an order with progress on stderr; Ctrl-C, SIGTERM and a closed terminal end it cleanly."""
    check_inputs(order.inputs, output=order.output)
    if order.output.exists() and not order.output.is_dir():
        raise UsageError(f"--output {order.output} is a file; it must be a folder")
    with locked(order):
        (order.state / "logs").mkdir(exist_ok=True)
        logs.configure(settings.log_level, order.state / "logs" / "run.log")
        job = Run(order, settings)

        def stop(number: int, _: FrameType | None) -> None:
            if job.report.interrupted is not None:
                os.kill(os.getpid(), signal.SIGKILL)  # asked twice: the kernel takes our children with us
            if number == signal.SIGHUP:
                let_go_of_terminal()
            job.interrupt(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop)
        with show.progress(Console(stderr=True, highlight=False)) as progress:
            return job.run(progress)


def let_go_of_terminal() -> None:
    """Send what is still printed to nowhere: writing to a terminal that was closed is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        if stat.S_ISCHR(os.fstat(fd).st_mode):  # isatty(3) denies it once the terminal is gone
            os.dup2(nowhere, fd)
    os.close(nowhere)


def exit_code(result: Report, order: Order) -> int:
    """Return what the command ends with. Raises UsageError when there was nothing to read."""
    if result.interrupted is not None:
        return 128 + result.interrupted
    if not result.ended:
        raise UsageError("no document was found in " + ", ".join(map(str, order.inputs)))
    return EXIT_DONE if result.succeeded else EXIT_INCOMPLETE


@app.command(rich_help_panel=_FLEET)
@with_profile
def worker(
    *,
    chosen: Profile,
    base_url: BaseUrlOption = None,
    gpus: Annotated[
        str | None, typer.Option(help="[b]all[/], or numbers such as [b]0,2[/]: a worker process for each.")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=256, help="Worker processes, where they don't follow from --gpus.")
    ] = 1,
) -> None:
    """Serve page jobs from a shared Redis ([b]OCRFLEET_REDIS_URL[/]) into a shared store ([b]OCRFLEET_STORE[/]).

    Each worker holds one engine and serves one profile. It is started again when its engine dies, and drains on SIGTERM
    or Ctrl-C: begun pages get [b]OCRFLEET_DRAIN_SECONDS[/]. Told again, it ends at once.

    [b]ocrfleet worker --profile deepseek-ocr-2 --gpus all[/]

    Exit code: 0 drained; 2 usage; 3 it can never start as it is configured; 130 or 143 told again.
    """
    settings = read_settings(base_url=base_url)
    devices = grouped(read_gpus(gpus), settings.vllm.tensor_parallel_size)
    if devices and processes > 1:
        raise UsageError("--processes and --gpus don't go together: each GPU has one worker process")
    sys.exit(supervise(chosen, settings, devices=devices or [None] * processes))


@app.command(rich_help_panel=_HERE)
def models(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False) -> None:
    """List the models with their prompts and modes, and the profiles that are made of them."""
    show_models(as_json=as_json)


@app.command(rich_help_panel=_HERE)
@with_profile
def bench(
    inputs: Annotated[list[Path], typer.Argument(help="Documents, as for [b]ocrfleet run[/]; the more, the better.")],
    *,
    chosen: Profile,
    base_url: BaseUrlOption = None,
    workers: WorkersOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure how fast this machine reads documents: pages a day, tokens a page, seconds the engine waited for us.

    Runs the whole fleet on the documents, in a folder that is removed afterwards.

    [b]ocrfleet bench --profile deepseek-ocr scans/[/]
    """
    settings = read_settings(base_url=base_url)
    with tempfile.TemporaryDirectory(prefix="ocrfleet-bench-") as folder:
        order = Order(
            inputs=tuple(inputs),
            output=Path(folder),
            profile=chosen,
            workers=workers or default_workers(chosen, settings),
            measured=True,
        )
        result = carry_out(order, settings)
    code = exit_code(result, order)
    speeds = speed(result)
    typer.echo(json.dumps(speeds, indent=1)) if as_json else show_speed(speeds)
    sys.exit(code)


@app.command(rich_help_panel=_HERE)
def samples(folder: Annotated[Path, typer.Argument(help="Where to write them; made if it isn't there.")]) -> None:
    """Draw a few sample documents: born-digital, scanned, two columns, a TIFF, a photo, a book of page images."""
    for path in write_samples(folder):
        typer.echo(path)


app.command(rich_help_panel=_FLEET)(dispatch)
app.command(rich_help_panel=_FLEET)(sweep)
app.command(rich_help_panel=_FLEET)(top)
app.command(rich_help_panel=_FLEET)(serve)
app.command(rich_help_panel=_FLEET)(watch)
app.command(rich_help_panel=_DOCUMENTS)(submit)
app.command(rich_help_panel=_DOCUMENTS)(documents.status)
app.command(rich_help_panel=_DOCUMENTS)(documents.results)
app.command(rich_help_panel=_DOCUMENTS)(documents.retry)
app.command(rich_help_panel=_DOCUMENTS)(documents.quarantine)
app.command(rich_help_panel=_DOCUMENTS)(documents.cancel)
app.command(rich_help_panel=_DOCUMENTS)(documents.delete)
app.command(rich_help_panel=_DOCUMENTS)(documents.pause)
app.command(rich_help_panel=_DOCUMENTS)(documents.resume)
app.command(rich_help_panel=_DOCUMENTS)(documents.purge)
