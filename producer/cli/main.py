"""The entry point `ocrfleet`. `typer.main.get_command(app)` is the click tree of all commands."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from ocrfleet.errors import ConfigurationError, OcrfleetError
from producer.cli.commands import LazyGroup
from producer.errors import EXIT_UNABLE, EXIT_USAGE, UsageError

app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Turn scanned documents into text: page jobs on a Redis queue, read by a fleet of OCR workers.",
)


def main() -> None:
    """Run the command line. An expected error is one line on stderr and an exit code."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))
    try:
        app()
    except UsageError as error:
        _fail("Error", error, EXIT_USAGE)
    except ConfigurationError as error:
        _fail("Can't start", error, EXIT_UNABLE)
    except OcrfleetError as error:
        _fail("Stopped", error, EXIT_UNABLE)


def _fail(what: str, error: OcrfleetError, code: int) -> None:
    from rich.markup import escape  # noqa: PLC0415 - `ocrfleet --version` does without rich

    from producer.cli import terminal  # noqa: PLC0415

    terminal.console(stderr=True, soft_wrap=True).print(f"[red]{what}:[/] {escape(str(error))}")
    sys.exit(code)


@app.callback(invoke_without_command=True)
def options(
    *, show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> None:
    if show_version:
        from importlib.metadata import version  # noqa: PLC0415 - only this option needs it

        typer.echo(f"ocrfleet {version('ocrfleet')}")
        raise typer.Exit
