"""The command line: one function for each command."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ocrfleet.errors import ConfigurationError, OcrfleetError
from producer.cli import documents
from producer.cli.bench import bench
from producer.cli.dispatch import dispatch
from producer.cli.models import show_models
from producer.cli.run import run
from producer.cli.serve import serve
from producer.cli.submit import submit
from producer.cli.sweep import sweep
from producer.cli.top import top
from producer.cli.watch import watch
from producer.cli.worker import worker
from producer.errors import EXIT_UNABLE, EXIT_USAGE, UsageError
from producer.samples.draw import write_samples

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
def models(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False) -> None:
    """List the models with their prompts and modes, and the profiles that are made of them."""
    show_models(as_json=as_json)


@app.command(rich_help_panel=_HERE)
def samples(folder: Annotated[Path, typer.Argument(help="Where to write them; made if it isn't there.")]) -> None:
    """Draw a few sample documents: born-digital, scanned, two columns, a TIFF, a photo, a book of page images."""
    for path in write_samples(folder):
        typer.echo(path)


app.command(rich_help_panel=_HERE)(run)
app.command(rich_help_panel=_HERE)(bench)
app.command(rich_help_panel=_FLEET)(worker)
app.command(rich_help_panel=_HERE)(run)
app.command(rich_help_panel=_HERE)(bench)
app.command(rich_help_panel=_FLEET)(worker)
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
