"""Delivery: a document's outputs, under the name that somebody chose for it, in the style that somebody likes."""

from __future__ import annotations

import filecmp
import io
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ocrfleet import keys
from ocrfleet.markdown.escape import figure_path
from ocrfleet.markdown.style import AS_STORED, Style, figures, restyled
from ocrfleet.records.base import digest_of
from producer.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ocrfleet.records.documents import Status
    from ocrfleet.storage.store import ObjectStore

#: Bytes that Linux file systems allow in a name.
_LONGEST_NAME = 255
_MARKDOWN = "md"


def deliver(store: ObjectStore, status: Status, *, name: str, folder: Path, style: Style = AS_STORED) -> list[Path]:
    """Write a document's outputs to `<folder>/<name>.<format>` and return their paths; Markdown in the style that is given.

    The pictures that the text shows lie beside it, in `figures/<document>/`, before the text that shows them does. A file
    that is the same already is left alone. A reader sees the old file or the new one, never half of one. Raises
    DeliveryError.
    """
    delivered = []
    for extension, output in status.outputs.items():
        target = folder / fitting(f"{name}.{extension}")
        if extension == _MARKDOWN and status.figures:
            _deliver_figures(store, status.document, output.key, target.parent)

        def write(out: BinaryIO, key: str = output.key, *, styled: bool = extension == _MARKDOWN) -> None:
            if styled and style != AS_STORED:
                out.writelines(f"{line}\n".encode() for line in restyled(_lines(store, key), style))
            else:
                with store.open(key) as source:
                    shutil.copyfileobj(source, out, 1 << 20)

        _put(target, write)
        delivered.append(target)
    return delivered


def _deliver_figures(store: ObjectStore, document: str, key: str, folder: Path) -> None:
    for name in figures(_lines(store, key)):

        def write(out: BinaryIO, name: str = name) -> None:
            with store.open(keys.figure(document, name)) as source:
                shutil.copyfileobj(source, out, 1 << 20)

        _put(folder / figure_path(document, name), write)


def _lines(store: ObjectStore, key: str) -> Iterator[str]:
    """Yield the lines of a stored text, without their ends: only a line feed ends one."""
    with closing(io.TextIOWrapper(store.open(key), encoding="utf-8", newline="\n")) as text:
        for line in text:
            yield line.removesuffix("\n")


def _put(target: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file aside, then put it into its place unless the same is there. Raises DeliveryError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{digest_of(target.name)[:16]}.part")
        try:
            with aside.open("wb") as out:
                write(out)
            if target.is_file() and filecmp.cmp(aside, target, shallow=False):
                aside.unlink()
            else:
                aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise DeliveryError(f"{target} can't be written: {error.strerror}") from error


def fitting(name: str) -> str:
    """Return a relative path whose last part is no longer than file systems allow; a digest replaces what is cut."""
    parent, slash, last = name.rpartition("/")
    if len(os.fsencode(last)) <= _LONGEST_NAME:
        return name
    mark = f"~{digest_of(last)[:8]}{last[last.rindex('.') :]}"
    return parent + slash + os.fsdecode(os.fsencode(last)[: _LONGEST_NAME - len(mark)]) + mark
