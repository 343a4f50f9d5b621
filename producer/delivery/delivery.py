"""Delivery: a document's outputs, under a submission's name and in its Markdown style, to a folder or to S3."""

from __future__ import annotations

import hashlib
import io
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from ocrfleet import keys
from ocrfleet.formats import FormatName, extension
from ocrfleet.markdown.escape import figure_path
from ocrfleet.markdown.style import AS_STORED, Style, figures, restyled
from producer.errors import OccupiedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ocrfleet.records.documents import Output, Status
    from ocrfleet.storage.store import ObjectStore

#: Format whose style can be chosen, and that shows figures beside it.
MARKDOWN = FormatName.MARKDOWN


class Sink(Protocol):
    """Where outputs are delivered to."""

    def target(self, name: str, extension: str) -> str:
        """Return the target of an output: `<name>.<extension>`, shortened where it would be too long."""

    def beside(self, target: str, path: str) -> str:
        """Return the target of a file that a delivered text refers to by a relative path."""

    def write(self, target: str, content: BinaryIO, *, sha256: str | None = None) -> None:
        """Write a target atomically: a reader finds the old content or the new one. `sha256` is the content's, if it is known.

        Raises OccupiedError when something that ocrfleet did not write is there.
        """


@dataclass(frozen=True, slots=True)
class DeliveredOutput:
    """An output at its target."""

    target: str
    #: of the delivered bytes, which differ from the stored ones where a style was chosen
    sha256: str


def deliver(
    store: ObjectStore,
    status: Status,
    *,
    name: str,
    sink: Sink,
    outputs: Mapping[str, Output] | None = None,
    style: Style = AS_STORED,
) -> list[DeliveredOutput]:
    """Write outputs of a document, by default those that its status names, to `<name>.<extension>` in a sink. May be repeated.

    The figures that the Markdown shows are written beside it, before the Markdown is. Raises what the store and the sink
    raise; OccupiedError only after the other outputs were written.
    """
    delivered: list[DeliveredOutput] = []
    occupied: list[str] = []
    for form, output in (status.outputs if outputs is None else outputs).items():
        target = sink.target(name, extension(form))
        try:
            if form == MARKDOWN and status.figures:
                for figure in figures(_lines(store, output.key)):
                    with closing(store.open(keys.figure(status.document, figure))) as content:
                        sink.write(sink.beside(target, figure_path(status.document, figure)), content)
            with _content(store, output, style if form == MARKDOWN else AS_STORED) as (content, sha256):
                sink.write(target, content, sha256=sha256)
        except OccupiedError as error:
            occupied.append(str(error))
        else:
            delivered.append(DeliveredOutput(target, sha256))
    if occupied:
        raise OccupiedError("; ".join(occupied))
    return delivered


@contextmanager
def _content(store: ObjectStore, output: Output, style: Style) -> Iterator[tuple[BinaryIO, str]]:
    """Open an output in a style, and give the SHA-256 of that. A restyled one is written to a temporary file first."""
    if style == AS_STORED:
        with closing(store.open(output.key)) as content:
            yield content, output.sha256
        return
    with tempfile.TemporaryFile() as file:
        sha = hashlib.sha256()
        for data in in_style(store, output.key, style):
            sha.update(data)
            file.write(data)
        file.seek(0)
        yield cast("BinaryIO", file), sha.hexdigest()


def in_style(store: ObjectStore, key: str, style: Style) -> Iterator[bytes]:
    """Yield the lines of a stored Markdown text in a style. Raises NotFoundError, TransientError."""
    for line in restyled(_lines(store, key), style):
        yield f"{line}\n".encode()


def _lines(store: ObjectStore, key: str) -> Iterator[str]:
    """Yield the lines of a stored text, without their ends. Only a line feed ends a line."""
    with closing(io.TextIOWrapper(store.open(key), encoding="utf-8", newline="\n")) as text:
        for line in text:
            yield line.removesuffix("\n")
