"""Delivery: a document's outputs, under the name that somebody chose for it."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ocrfleet.errors import OcrfleetError

if TYPE_CHECKING:
    from ocrfleet.jobs import Status
    from ocrfleet.storage import ObjectStore


class DeliveryError(OcrfleetError):
    """An output can't be written where it was asked for."""


def deliver(store: ObjectStore, status: Status, *, name: str, folder: Path) -> list[Path]:
    """Copy a document's outputs to `<folder>/<name>.<format>` and return their paths.

    A file that is the same already is left alone. A reader sees the old file or the new one, never half of one.
    Raises DeliveryError.
    """
    delivered = []
    for extension, output in status.outputs.items():
        target = folder / f"{name}.{extension}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name}.part")
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
