"""The document as JSON: for each page its status, reason, text, lines with boxes, and what read it."""

from __future__ import annotations

import json
from typing import BinaryIO

from ocrfleet.jobs import DocumentStatus, Manifest, PageResult

EXTENSION = "json"

COORDINATES = (
    "boxes are [x0, y0, x1, y1] in pixels of the page image as displayed (rotation applied), origin top left, y down; "
    "times width_pt/width_px they are PDF points"
)


class JsonWriter:
    """Writes one document to a stream, page by page, one page a line."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._separator = b"\n"

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:
        head = {
            "schema_version": 1,
            "document": manifest.document,
            "status": status,
            "problem": manifest.problem.model_dump(mode="json") if manifest.problem else None,
            "profile": manifest.profile,
            "profile_digest": manifest.profile_digest,
            "sources": [
                {"sha256": source.sha256, "kind": source.kind, "pages": source.pages} for source in manifest.sources
            ],
            "coordinates": COORDINATES,
        }
        text = json.dumps(head, ensure_ascii=False, indent=1)
        self._out.write(text.removesuffix("\n}").encode() + b',\n "pages": [')

    def page(self, result: PageResult) -> None:
        self._out.write(self._separator + b"  " + result.model_dump_json(exclude={"schema_version"}).encode())
        self._separator = b",\n"

    def end(self) -> None:
        self._out.write(b"\n ]\n}\n")
