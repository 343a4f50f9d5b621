"""The outputs of an ended document: those that its status names, and those that were made later."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.records.documents import Conversion, Output, Status

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs by format, and why others can't be had."""

    made: dict[str, Output] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def missing(self, formats: Iterable[str]) -> tuple[str, ...]:
        """Return the formats that are neither there nor refused."""
        return tuple(name for name in formats if name not in self.made and name not in self.refused)


def outputs_of(store: ObjectStore, status: Status, formats: Iterable[str]) -> Outputs:
    """Return a document's outputs in these formats, as far as they are there. Raises TransientError.

    An output that its status names costs no request. A document that was cancelled has none.
    """
    outputs = Outputs()
    for name in formats:
        if name in status.outputs:
            outputs.made[name] = status.outputs[name]
            continue
        conversion = _conversion(store, status, name)
        if conversion is not None and conversion.output is not None:
            outputs.made[name] = conversion.output
        elif conversion is not None and conversion.refused is not None:
            outputs.refused[name] = conversion.refused
        elif status.refused is not None and name in status.refused:
            outputs.refused[name] = status.refused[name]
    return outputs


def _conversion(store: ObjectStore, status: Status, name: str) -> Conversion | None:
    with suppress(NotFoundError, DamagedRecordError):
        return Conversion.from_bytes(store.get(keys.conversion(status.document, status.generation, name)))
    return None
