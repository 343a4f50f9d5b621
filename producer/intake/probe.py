"""The program in the sandbox that counts the pages of a document: `python -m producer.intake.probe`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.decoders import open_document
from ocrfleet.sandbox.sandbox import serve

if TYPE_CHECKING:
    from mmap import mmap


def probe(request: dict[str, Any], fd: int | None, _shared: mmap | None) -> dict[str, Any]:
    """Answer {"pages": n} to {"kind": …, "passwords": […]} with a descriptor, or raise PermanentError."""
    if fd is None:
        raise ValueError("a probe needs a document")
    with closing(open_document(fd, Kind(request["kind"]), request["passwords"])) as document:
        return {"pages": document.pages}


if __name__ == "__main__":
    serve(probe)
