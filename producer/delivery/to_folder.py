"""Deliver to a local folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ocrfleet.markdown.style import AS_STORED, Style
from ocrfleet.records.base import digest_of
from producer.delivery import delivery
from producer.delivery.earlier_outputs import EarlierOutputs
from producer.delivery.output_folder import OutputFolder
from producer.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ocrfleet.records.documents import Output, Status
    from ocrfleet.storage.store import ObjectStore

#: Bytes that Linux file systems allow in a name.
_LONGEST_NAME = 255
#: Bytes of ".json": names are cut in the same way for all extensions up to that length.
_USUAL_EXTENSION = 5


def deliver(
    store: ObjectStore,
    status: Status,
    *,
    name: str,
    folder: Path,
    outputs: Mapping[str, Output] | None = None,
    style: Style = AS_STORED,
    named: Callable[[str], Iterable[str]] = lambda _: (),
) -> list[Path]:
    """Write outputs of a document, by default those that its status names, to `<folder>/<name>.<extension>`; return their paths.

    `named` returns the documents that may have been delivered by that name before. Raises DeliveryError when a file can't be
    written, and what the store raises.
    """
    sink = FolderSink(folder, earlier=lambda: EarlierOutputs(store, {status.document, *named(name)}))
    delivered = delivery.deliver(store, status, name=name, sink=sink, outputs=outputs, style=style)
    return [Path(output.target) for output in delivered]


class FolderSink:
    """A folder. A file with the same content already is left alone, so that programs that watch it see no change."""

    def __init__(self, folder: Path, *, earlier: Callable[[], Container[str]] = tuple) -> None:
        """`earlier` returns the SHA-256 of outputs that a version may have written that recorded none."""
        self._folder = folder
        self._files = OutputFolder(folder)
        self._earlier = earlier

    def target(self, name: str, extension: str) -> str:
        return str(self._folder / fitting(name, extension))

    def beside(self, target: str, path: str) -> str:
        return str(Path(target).parent / path)

    def write(self, target: str, content: BinaryIO, *, sha256: str | None = None) -> None:  # noqa: ARG002 - it is computed
        """Write a file unless the same is there. Raises DeliveryError."""
        path = Path(target)
        try:
            self._files.write(path, content, earlier=self._earlier)
        except OSError as error:
            raise DeliveryError(f"{path} can't be written: {error.strerror}") from error


def fitting(name: str, extension: str) -> str:
    """Return a relative path whose last part is no longer than file systems allow; a digest replaces the rest of a long one.

    It is cut between two letters.
    """
    parent, slash, last = name.rpartition("/")
    room = _LONGEST_NAME - max(len(extension) + 1, _USUAL_EXTENSION)
    stem = os.fsencode(last)
    if len(stem) <= room:
        return f"{name}.{extension}"
    mark = f"~{digest_of(last)[:8]}"
    end = room - len(mark)
    while end and stem[end] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8's bytes within a letter begin with these bits
        end -= 1
    return f"{parent}{slash}{os.fsdecode(stem[:end])}{mark}.{extension}"
