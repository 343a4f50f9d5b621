"""The command line: `ocrfleet run`, `ocrfleet worker`, `ocrfleet samples`."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from ocrfleet import logs
from ocrfleet.errors import ConfigurationError, OcrfleetError
from ocrfleet.profiles import PROFILES, RAPIDOCR, Profile, resolve
from ocrfleet.settings import Settings
from producer import show
from producer.discover import UsageError, check_inputs
from producer.estimate import estimate
from producer.register import Selection
from producer.report import Report
from producer.run import Order, Run, locked
from producer.samples import write_samples

EXIT_DONE, EXIT_INCOMPLETE, EXIT_USAGE, EXIT_UNABLE = 0, 1, 2, 3

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


@app.command()
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
    engine: Annotated[str, typer.Option(help=f"What reads the pages: {', '.join(PROFILES)}.")] = RAPIDOCR.name,
    language: Annotated[
        str | None, typer.Option(help="Languages for engines that must be told, e.g. [b]deu+Fraktur[/].")
    ] = None,
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
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="OCR processes; one for each core by default.")
    ] = None,
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
    settings = read_settings(password_file)
    order = Order(
        inputs=tuple(inputs),
        output=output,
        profile=read_profile(engine, language),
        worker_arguments=("--engine", engine, *(["--language", language] if language else [])),
        selection=parse_pages(pages) if pages else (),
        group_folders=read_group(group),
        retry_failed=retry_failed,
        workers=workers or len(os.sched_getaffinity(0)),
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


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def worker(context: typer.Context) -> None:
    """Serve page jobs from a shared Redis ([b]OCRFLEET_REDIS_URL[/]) into a shared store ([b]OCRFLEET_STORE[/])."""
    os.execv(sys.executable, [sys.executable, "-m", "worker", *context.args])  # noqa: S606


@app.command()
def samples(folder: Annotated[Path, typer.Argument(help="Where to write them; made if it isn't there.")]) -> None:
    """Draw a few sample documents: born-digital, scanned, two columns, a TIFF, a photo, a book of page images."""
    for path in write_samples(folder):
        typer.echo(path)


def read_settings(password_file: Path | None) -> Settings:
    """Read OCRFLEET_* and the options that stand for one of them. Raises UsageError."""
    try:
        settings = Settings() if password_file is None else Settings(password_file=password_file.absolute())
    except ValidationError as error:
        problems = "; ".join(f"OCRFLEET_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise UsageError(problems) from error
    try:
        settings.passwords()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the password file {settings.password_file} can't be read: {error}") from error
    return settings


def read_profile(engine: str, language: str | None) -> Profile:
    """Return the profile that the options name. Raises UsageError."""
    try:
        return resolve(engine, language=language)
    except ConfigurationError as error:
        raise UsageError(str(error)) from error


def read_group(group: str | None) -> bool:
    """Say whether the images of a folder are one document. Raises UsageError."""
    if group not in {None, "folder"}:
        raise UsageError(f"--group takes 'folder', not {group!r}")
    return group == "folder"


def parse_pages(text: str) -> Selection:
    """Return the ranges of a page selection such as `3-10`, `1,5-` or `-4`. Raises UsageError."""
    ranges: list[tuple[int, int | None]] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{0,6})\s*(?:(-)\s*([0-9]{0,6})\s*)?", part)
        if match is None or not (match[1] or match[3]):
            raise UsageError(f"--pages {text!r}: write it like 3-10, or 1,5-8, or 20-")
        first = int(match[1] or 1)
        last = first if not match[2] else int(match[3]) if match[3] else None
        if first < 1 or (last is not None and last < first):
            raise UsageError(f"--pages {text!r}: pages count from 1, and a range goes upwards")
        ranges.append((first, last))
    return ranges
