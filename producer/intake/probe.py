"""The sandboxed program that counts the pages of a document, started by a Sandbox."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.decoders import load_decoders, open_document

if TYPE_CHECKING:
    from mmap import mmap

    from ocrfleet.sandbox.child import Handler


def probe(request: dict[str, Any], fd: int | None, _shared: mmap | None) -> dict[str, Any]:
    """Answer {"pages": n} to {"kind": …, "passwords": […]} with a descriptor, or raise PermanentError."""
    if fd is None:
        raise ValueError("a probe needs a document")
    with closing(open_document(fd, Kind(request["kind"]), request["passwords"])) as document:
        return {"pages": document.pages}


def handler() -> Handler:
    load_decoders()
    return probe
