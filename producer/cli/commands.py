"""The commands by name: a command's module is imported when the command is used, not to list it."""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_MACHINE, _FLEET, _DOCUMENTS = "On this machine", "A fleet", "Documents of a fleet"


@dataclass(frozen=True, slots=True)
class Listed:
    """A command as `ocrfleet --help` lists it."""

    #: module below producer.cli that has a function of the command's name
    module: str
    panel: str
    summary: str


#: In the order of `ocrfleet --help`.
COMMANDS = {
    "models": Listed("models", _MACHINE, "List models with their prompts and modes, and the profiles made of them."),
    "samples": Listed("samples", _MACHINE, "Write sample documents: PDFs, a TIFF, a photo, a book of page images."),
    "run": Listed("run", _MACHINE, "Read documents on this machine: no server needed."),
    "convert": Listed("convert", _MACHINE, "Write documents in further formats, from their stored pages."),
    "report": Listed("report", _MACHINE, "Report on quality: every page of a run or a collection, as HTML and CSV."),
    "bench": Listed("bench", _MACHINE, "Measure the speed of a profile: pages a day, tokens a page, idle seconds."),
    "worker": Listed("worker", _FLEET, "Run worker processes: page jobs from Redis, results to the store."),
    "dispatch": Listed("dispatch", _FLEET, "Run the controller and the intake consumers, without an HTTP API."),
    "intake": Listed("intake", _FLEET, "Run intake consumers: they open submitted documents and register them."),
    "sweep": Listed("sweep", _FLEET, "Publish lost page jobs and assemblies again."),
    "top": Listed("top", _FLEET, "Show a fleet live: backlog, speed, problems, workers."),
    "serve": Listed("serve", _FLEET, "Serve the HTTP API; run the controller and the intake consumers beside it."),
    "token": Listed("token", _FLEET, "Create, list or revoke tokens of the HTTP API."),
    "watch": Listed("watch", _FLEET, "Submit what is uploaded to buckets: by events, by listing, or both."),
    "submit": Listed("submit", _DOCUMENTS, "Submit documents, folders or S3 prefixes to a fleet."),
    "status": Listed("documents", _DOCUMENTS, "Show the state of a document, a collection or the fleet."),
    "results": Listed("documents", _DOCUMENTS, "Download a document's outputs."),
    "retry": Listed("documents", _DOCUMENTS, "Retry pages that are not done, of documents or of a collection."),
    "quarantine": Listed("documents", _DOCUMENTS, "List the pages that killed workers, and their diagnostics."),
    "cancel": Listed("documents", _DOCUMENTS, "Cancel documents; pages that are done are kept."),
    "delete": Listed("documents", _DOCUMENTS, "Delete documents with all that is stored of them."),
    "pause": Listed("documents", _DOCUMENTS, "Pause a collection: dispatch no more of its pages."),
    "resume": Listed("documents", _DOCUMENTS, "Resume a paused collection."),
    "purge": Listed("documents", _DOCUMENTS, "Delete old uploads, page records or documents."),
}


class _Loaded(Mapping[str, TyperCommand]):
    """The click commands by name; reading one imports its module."""

    def __getitem__(self, name: str) -> TyperCommand:
        return _load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


@functools.cache
def _load(name: str) -> TyperCommand:
    listed = COMMANDS[name]
    module = importlib.import_module(f"producer.cli.{listed.module}")
    single = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    single.command(name, short_help=listed.summary, rich_help_panel=listed.panel)(getattr(module, name))
    command = typer.main.get_command(single)
    assert isinstance(command, TyperCommand)  # noqa: S101 - one function makes one command
    return command


@contextmanager
def _printable_errors() -> Iterator[None]:
    """Make click's message about a wrong argument, which repeats it, printable."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "message"):
            from producer.text import printable  # noqa: PLC0415 - imports rich

            error.message = printable(str(error.message))
        raise


class LazyGroup(TyperGroup):
    """A group of all COMMANDS. Its `commands` is the whole tree: iterating over its values imports every command."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"commands": {}})
        self.commands = _Loaded()  # type: ignore[assignment]

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _printable_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _printable_errors():
            return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help from COMMANDS alone."""
        outline = copy.copy(self)
        outline.commands = {
            name: TyperCommand(name, short_help=listed.summary, rich_help_panel=listed.panel)
            for name, listed in COMMANDS.items()
        }
        super(LazyGroup, outline).format_help(ctx, formatter)
