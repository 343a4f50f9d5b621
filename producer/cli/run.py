"""`ocrfleet run`: reads documents on this machine, with an embedded fleet."""

from __future__ import annotations

import os
import signal
import stat
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ocrfleet import logs
from ocrfleet.markdown.style import Style, Tables
from ocrfleet.profiles.profile import Profile
from ocrfleet.settings import Settings
from producer.cli import terminal
from producer.cli.options import (
    DEFAULT,
    AuditOption,
    BaseUrlOption,
    FormatsOption,
    JoinHyphensOption,
    PdfText,
    PdfTextOption,
    TablesOption,
    WorkersOption,
    read_formats,
    read_group,
    read_settings,
    with_profile,
)
from producer.cli.render import run as show
from producer.cli.render.estimate import run_json, show_estimate
from producer.cli.render.progress import run_progress
from producer.errors import EXIT_DONE, EXIT_INCOMPLETE, UsageError
from producer.intake.discover import check_inputs
from producer.intake.page_ranges import parse_pages
from producer.local.estimate import estimate_run
from producer.local.progress import Report
from producer.local.run import Order, Run, locked
from producer.local.skipped import keep_skipped
from producer.processes.worker_command import default_workers


@with_profile
def run(
    inputs: Annotated[
        list[Path], typer.Argument(help="PDFs, images (PNG, JPEG, TIFF, WebP, BMP, JPEG 2000), and folders of them.")
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the outputs; its subfolder .ocrfleet keeps the state from which a run is resumed.",
        ),
    ],
    chosen: Profile,
    base_url: BaseUrlOption = None,
    audit: AuditOption = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="[b]folder[/]: the images of each folder, in natural order, are one document.", metavar="folder"
        ),
    ] = None,
    pages: Annotated[
        str | None, typer.Option(help="Pages to read of each document, e.g. [b]3-10[/] or [b]1,5-[/].")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with one password a line, for encrypted PDFs.")
    ] = None,
    workers: WorkersOption = None,
    formats: FormatsOption = DEFAULT,
    pdf_text: PdfTextOption = PdfText.REPLACE,
    tables: TablesOption = Tables.HTML,
    join_hyphens: JoinHyphensOption = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry pages that failed in an earlier run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count pages and estimate the time; read nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON summary instead of tables.")] = False,
) -> None:
    """Read documents on this machine: no server needed.

    Writes [b]OUTPUT/<path>.md[/] and [b]OUTPUT/<path>.json[/] for each document, or what [b]--formats[/] names. After an interruption or
    a crash, the same command resumes. A failed page has a placeholder in the text; its reason is listed at the end.

    [b]ocrfleet run scans/ more.pdf --output out/[/]

    Exit code: 0 every page done; 1 some document partial or failed; 2 usage; 3 misconfigured; 130 interrupted.
    """
    settings = read_settings(password_file, base_url, audit)
    order = Order(
        inputs=tuple(inputs),
        output=output,
        profile=chosen,
        selection=parse_pages(pages) if pages else (),
        group_folders=read_group(group),
        retry_failed=retry_failed,
        workers=workers or default_workers(chosen, settings),
        formats=read_formats(formats, pdf_text),
        style=Style(tables=tables, join_hyphens=join_hyphens),
    )
    if dry_run:
        _dry_run(order, settings, as_json=as_json)
        return
    result = carry_out(order, settings)
    if as_json:
        terminal.echo(show.summary(result))
    else:
        show.report(terminal.console(soft_wrap=True), result, output)
    sys.exit(exit_code(result, order))


def _dry_run(order: Order, settings: Settings, *, as_json: bool) -> None:
    estimate = estimate_run(order, settings)
    if as_json:
        terminal.echo(run_json(estimate))
        return
    show.show_skipped(terminal.console(soft_wrap=True), estimate.skipped)
    show_estimate(
        estimate,
        skipped=len(estimate.skipped),
        workers=f"{order.workers} workers at {order.profile.typical_seconds:g} s a page",
        ending="Nothing was read or written.",
    )


def carry_out(order: Order, settings: Settings) -> Report:
    """Run an order with progress on stderr. Ctrl-C, SIGTERM and a closed terminal stop it after the pages in flight."""
    check_inputs(order.inputs, output=order.output)
    if order.output.exists() and not order.output.is_dir():
        raise UsageError(f"--output {order.output} is a file; it must be a folder")
    with locked(order.output):
        try:
            logs.configure(settings.log_level, order.state / "logs" / "run.log")
        except OSError as error:
            raise UsageError(f"--output {order.output} can't be written: {error.strerror}") from error
        job = Run(order, settings)

        def stop(number: int, _: FrameType | None) -> None:
            if job.report.interrupted is not None:
                os.kill(os.getpid(), signal.SIGKILL)  # the second signal; the kernel kills the children, too
            if number == signal.SIGHUP:
                let_go_of_terminal()
            job.interrupt(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop)
        with run_progress(terminal.console(stderr=True)) as progress:
            result = job.run(progress)
        keep_skipped(order.state, result.skipped)
        return result


def let_go_of_terminal() -> None:
    """Redirect output to /dev/null: writing to a closed terminal is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        if stat.S_ISCHR(os.fstat(fd).st_mode):  # isatty(3) denies it once the terminal is gone
            os.dup2(nowhere, fd)
    os.close(nowhere)


def exit_code(result: Report, order: Order) -> int:
    """Return the exit code of a run. Raises UsageError when no document was found."""
    if result.interrupted is not None:
        return 128 + result.interrupted
    if not result.ended:
        raise UsageError("no document was found in " + ", ".join(map(str, order.inputs)))
    return EXIT_DONE if result.succeeded else EXIT_INCOMPLETE
