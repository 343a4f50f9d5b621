"""Delivery: a document's outputs, under the name that somebody chose for it."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ocrfleet.errors import OcrfleetError
from ocrfleet.jobs import digest_of

if TYPE_CHECKING:
    from ocrfleet.jobs import Status
    from ocrfleet.storage import ObjectStore

#: Bytes that Linux file systems allow in a name.
_LONGEST_NAME = 255


class DeliveryError(OcrfleetError):
    """An output can't be written where it was asked for."""


def deliver(store: ObjectStore, status: Status, *, name: str, folder: Path) -> list[Path]:
    """Copy a document's outputs to `<folder>/<name>.<format>` and return their paths.

    A file that is the same already is left alone. A reader sees the old file or the new one, never half of one.
    Raises DeliveryError.
    """
    delivered = []
    for extension, output in status.outputs.items():
        target = folder / fitting(f"{name}.{extension}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{digest_of(target.name)[:16]}.part")
            try:
                with store.open(output.key) as source, aside.open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
                if target.is_file() and filecmp.cmp(aside, target, shallow=False):
                    aside.unlink()
                else:
                    aside.replace(target)
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            raise DeliveryError(f"{target} can't be written: {error.strerror}") from error
        delivered.append(target)
    return delivered


def fitting(name: str) -> str:
    """Return a relative path whose last part is no longer than file systems allow; a digest replaces what is cut."""
    parent, slash, last = name.rpartition("/")
    if len(os.fsencode(last)) <= _LONGEST_NAME:
        return name
    mark = f"~{digest_of(last)[:8]}{last[last.rindex('.') :]}"
    return parent + slash + os.fsdecode(os.fsencode(last)[: _LONGEST_NAME - len(mark)]) + mark
