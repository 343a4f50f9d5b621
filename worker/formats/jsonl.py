"""JSON Lines in the shape of Dolma's documents, for training data: one document a line, attributes as spans of its text.

Spans are [start, end, value], in characters (code points) of `text`, as in Dolma (https://github.com/allenai/dolma,
docs/data-format.md). A page without text has an empty span, so that every page is accounted for.
"""

from __future__ import annotations

import json
import tempfile
from typing import Any, BinaryIO

from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import PageResult
from worker.formats.content import text_of
from worker.formats.materials import Materials

_SOURCE = "ocrfleet"
_ATTRIBUTES = ("page", "status", "reason", "engine", "confidence", "review", "text_layer")


class JsonlWriter:
    """Writes one document to a stream: its text page by page, then the spans, which wait in a temporary file each."""

    def __init__(self, out: BinaryIO, _: Materials) -> None:
        self._out = out
        self._at = 0
        self._separator = ""
        self._rest: dict[str, Any] = {}
        self._spans = {name: _Spans() for name in _ATTRIBUTES}

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:
        day, time = manifest.created[:8], manifest.created[9:15]
        self._rest = {
            "source": _SOURCE,
            "added": f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}.{manifest.created[16:19]}Z",
            "metadata": {
                "status": status,
                "problem": manifest.problem.model_dump(mode="json") if manifest.problem is not None else None,
                "pages": manifest.total,
                "profile": manifest.profile,
                "profile_digest": manifest.profile_digest,
                "sources": [{"sha256": source.sha256, "kind": source.kind} for source in manifest.sources],
            },
        }
        self._out.write(b'{"id":' + _json(manifest.document) + b',"text":"')

    def page(self, result: PageResult) -> None:
        text = text_of(result)
        start = self._at + len(self._separator)
        end = start + len(text)
        self._out.write(_json(self._separator + text)[1:-1])
        self._at, self._separator = end, "\n"
        version = f" {result.engine_version}" if result.engine_version else ""
        values = {
            "page": result.page,
            "status": result.status,
            "reason": result.reason,
            "engine": f"{result.engine}{version}: {result.model}@{result.revision}",
            "confidence": result.confidence,
            "review": result.review_reason if result.review else None,
            "text_layer": result.text_layer or None,
        }
        for name, value in values.items():
            if value is not None:
                self._spans[name].add(start, end, value)

    def end(self) -> None:
        self._out.write(b'",' + _json(self._rest)[1:-1] + b',"attributes":{')
        for number, (name, spans) in enumerate(self._spans.items()):
            self._out.write(b"," * bool(number) + _json(name) + b":[")
            spans.copy_to(self._out)
            self._out.write(b"]")
        self._out.write(b"}}\n")


class _Spans:
    """The spans of one attribute: in memory while they are few, then in a file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=1 << 16)  # noqa: SIM115 - closed by copy_to

    def add(self, start: int, end: int, value: object) -> None:
        self._file.write(b"," * bool(self._file.tell()) + _json([start, end, value]))

    def copy_to(self, out: BinaryIO) -> None:
        self._file.seek(0)
        while piece := self._file.read(1 << 16):
            out.write(piece)
        self._file.close()


def _json(value: object) -> bytes:
    # Line separators of Unicode are line ends for many readers of lines.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085").encode()
