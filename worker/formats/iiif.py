"""A IIIF Presentation 3 manifest: a canvas for each page, and a W3C Web Annotation for each line of its text.

Viewers such as Mirador and Universal Viewer show the lines over the page images, which a web server or an image server
publishes (https://iiif.io/api/presentation/3.0/). Addresses follow from OCRFLEET_IIIF_URL:

    <url>/<document>/manifest.json       this file
    <url>/<document>/pages/000001.jpg    the image of page 1, of any size with the page's proportions
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from ocrfleet.errors import PermanentError
from ocrfleet.records.documents import DocumentStatus, Manifest
from ocrfleet.records.pages import PageResult, PageStatus
from worker.formats.content import notice, visible
from worker.formats.materials import Materials
from worker.formats.page_layout import Box, page_layout

_CONTEXT = "http://iiif.io/api/presentation/3/context.json"
#: Width and height of a page without a known size: a canvas requires them.
_UNKNOWN = (1000, 1414)


class IiifWriter:
    """Writes one document to a stream, one line per page."""

    def __init__(self, out: BinaryIO, materials: Materials) -> None:
        self._out = out
        self._url = materials.iiif_url.rstrip("/")
        self._separator = b"\n"

    def begin(self, manifest: Manifest, status: DocumentStatus) -> None:
        if manifest.problem is not None:
            raise PermanentError(manifest.problem.reason, f"it has no pages: {manifest.problem.detail}")
        self._url = f"{self._url}/{manifest.document}"
        head = {
            "@context": _CONTEXT,
            "id": f"{self._url}/manifest.json",
            "type": "Manifest",
            "label": _label(f"Document {manifest.document}"),
            "metadata": [
                {"label": _label("Text recognition"), "value": _label(manifest.profile)},
                {"label": _label("Status"), "value": _label(status)},
            ],
            # Pages of a book face each other; for single sheets it is unknown.
            "behavior": ["individuals"],
        }
        self._out.write(_json(head)[:-1] + b',"items":[')

    def page(self, result: PageResult) -> None:
        self._out.write(self._separator + _json(self._canvas(result)))
        self._separator = b",\n"

    def end(self) -> None:
        self._out.write(b"\n]}\n")

    def _canvas(self, result: PageResult) -> dict[str, Any]:
        place = f"{self._url}/canvas/{result.page}"
        width, height = (result.width_px, result.height_px) if result.width_px and result.height_px else _UNKNOWN
        image = {
            "id": f"{self._url}/pages/{result.page:06d}.jpg",
            "type": "Image",
            "format": "image/jpeg",
            "width": width,
            "height": height,
        }
        painting = {
            "id": f"{place}/image",
            "type": "Annotation",
            "motivation": "painting",
            "body": image,
            "target": place,
        }
        canvas: dict[str, Any] = {
            "id": place,
            "type": "Canvas",
            "label": _label(str(result.page)),
            "width": width,
            "height": height,
            "items": [{"id": f"{place}/images", "type": "AnnotationPage", "items": [painting]}],
        }
        if result.status is PageStatus.FAILED:
            canvas["summary"] = _label(notice(result))
        lines = [line for block in page_layout(result) for line in block.lines]
        if lines:
            canvas["annotations"] = [
                {
                    "id": f"{place}/lines",
                    "type": "AnnotationPage",
                    "label": _label("Text"),
                    "items": [
                        _annotation(
                            f"{place}/line/{number}", visible(line.text), _target(place, line.box, width, height)
                        )
                        for number, line in enumerate(lines, 1)
                    ],
                }
            ]
        return canvas


def _annotation(name: str, text: str, target: str) -> dict[str, Any]:
    body = {"type": "TextualBody", "format": "text/plain", "value": text}
    return {"id": name, "type": "Annotation", "motivation": "supplementing", "body": body, "target": target}


def _target(canvas: str, box: Box, width: int, height: int) -> str:
    """Return a region of a canvas in whole pixels, clipped to the canvas."""
    x0, y0 = max(0, min(width - 1, round(box[0]))), max(0, min(height - 1, round(box[1])))
    x1, y1 = max(x0 + 1, min(width, round(box[2]))), max(y0 + 1, min(height, round(box[3])))
    return f"{canvas}#xywh={x0},{y0},{x1 - x0},{y1 - y0}"


def _label(text: str) -> dict[str, list[str]]:
    return {"none": [text]}


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
