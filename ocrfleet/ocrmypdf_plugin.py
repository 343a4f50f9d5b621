"""An OCR engine for OCRmyPDF: an ocrfleet server, or ocrfleet's own CPU engine on this machine.

    ocrmypdf --plugin ocrfleet.ocrmypdf_plugin --ocrfleet-url http://127.0.0.1:8080 scan.pdf searchable.pdf

This file needs nothing but Python and OCRmyPDF, so that it may be copied to where OCRmyPDF runs and be named by its path;
without a URL it needs ocrfleet beside it.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ocrmypdf import OcrEngine, OrientationConfidence, hookimpl
from ocrmypdf.exceptions import BadArgsError, ExitCode, ExitCodeException
from ocrmypdf.hocrtransform import BoundingBox, OcrClass, OcrElement
from PIL import Image

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator
    from pathlib import Path

    from ocrmypdf._options import OcrOptions

#: Seconds between two looks at a page that is being read, the first and the last; each is half as long again as the one before.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
#: Seconds that one request may take, and seconds until a page must have been read where the options don't say.
_REQUEST, _PAGE = 60.0, 1800.0
#: Bytes of a response at most.
_LARGEST = 64 << 20
#: A server's answers that may be others in a moment.
_BUSY = frozenset({429, 502, 503, 504})
_READER = "worker.read_image"
_WORDS_ONLY = "ocrfleet gives OCRmyPDF words, no pages: leave out --pdf-renderer, or use --pdf-renderer fpdf2"


class OcrfleetError(ExitCodeException):
    """A page could not be read: the message names the cause."""

    exit_code = ExitCode.child_process_error


@hookimpl
def add_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("ocrfleet", "The pages are read by ocrfleet")
    group.add_argument(
        "--ocrfleet-url",
        default=os.environ.get("OCRFLEET_URL"),
        help="URL of an ocrfleet server, by default $OCRFLEET_URL; without one, pages are read on this machine. The server's "
        "token is read from $OCRFLEET_TOKEN.",
    )
    group.add_argument(
        "--ocrfleet-timeout", type=float, default=_PAGE, help="Seconds until a page must have been read (%(default)g)."
    )


@hookimpl
def check_options(options: OcrOptions) -> None:
    """Refuse the renderer that takes PDF pages from the engine, before a page is read. Raises BadArgsError."""
    if get_ocr_engine(options) is not None and options.pdf_renderer == "sandwich":
        raise BadArgsError(_WORDS_ONLY)


@hookimpl
def get_ocr_engine(options: OcrOptions | None) -> OcrEngine | None:
    """Return this engine unless another one was asked for by name."""
    if getattr(options, "ocr_engine", "auto") != "auto":
        return None
    return OcrfleetEngine()


class OcrfleetEngine(OcrEngine):
    """Sends each page image to ocrfleet, and gives its words to OCRmyPDF. Languages are the profile's business."""

    @staticmethod
    def version() -> str:
        return "1"

    @staticmethod
    def creator_tag(options: OcrOptions) -> str:  # noqa: ARG004 - OCRmyPDF's interface
        return "ocrfleet"

    def __str__(self) -> str:
        return "ocrfleet"

    @staticmethod
    def languages(options: OcrOptions) -> set[str]:
        """Return the languages that were asked for: ocrfleet's engines need none, and refuse none."""
        return set(options.languages)

    @staticmethod
    def get_orientation(input_file: Path, options: OcrOptions) -> OrientationConfidence:  # noqa: ARG004
        """Return that a page may stay as it is: ocrfleet reads pages whichever way up they are."""
        return OrientationConfidence(angle=0, confidence=0.0)

    @staticmethod
    def supports_generate_ocr() -> bool:
        return True

    @staticmethod
    def generate_ocr(input_file: Path, options: OcrOptions, page_number: int = 0) -> tuple[OcrElement, str]:
        """Read a page image; return its lines and words, and its text. Raises OcrfleetError."""
        url = getattr(options, "ocrfleet_url", None) or os.environ.get("OCRFLEET_URL")
        timeout = float(getattr(options, "ocrfleet_timeout", None) or _PAGE)
        page = _Server(url, timeout).read(input_file) if url else _local_reader().read(input_file)
        with Image.open(input_file) as image:
            size, dpi = image.size, image.info.get("dpi", (72.0, 72.0))[0]
        return tree(page, size, dpi=float(dpi), page_number=page_number), page.get("text", "")

    @staticmethod
    def generate_hocr(input_file: Path, output_hocr: Path, output_text: Path, options: OcrOptions) -> None:  # noqa: ARG004
        raise OcrfleetError(_WORDS_ONLY)

    @staticmethod
    def generate_pdf(input_file: Path, output_pdf: Path, output_text: Path, options: OcrOptions) -> None:  # noqa: ARG004
        raise OcrfleetError(_WORDS_ONLY)


def tree(page: dict[str, Any], size: tuple[int, int], *, dpi: float, page_number: int) -> OcrElement:
    """Return a page's record as OCRmyPDF's tree; boxes are in pixels of the image that was sent, of this size."""
    root = OcrElement(ocr_class=OcrClass.PAGE, bbox=BoundingBox(0, 0, *size), dpi=dpi, page_number=page_number)
    across, down = size[0] / (page.get("width_px") or size[0]), size[1] / (page.get("height_px") or size[1])
    for words in _lines(page, size):
        line = OcrElement(ocr_class=OcrClass.LINE)
        for text, (x0, y0, x1, y1), confidence in words:
            left, right = sorted((x0 * across, x1 * across))
            top, bottom = sorted((y0 * down, y1 * down))
            line.children.append(
                OcrElement(
                    ocr_class=OcrClass.WORD,
                    bbox=BoundingBox(left, top, right, bottom),
                    text=text,
                    confidence=confidence,
                )
            )
        boxes = [word.bbox for word in line.children if word.bbox is not None]
        line.bbox = BoundingBox(
            min(box.left for box in boxes),
            min(box.top for box in boxes),
            max(box.right for box in boxes),
            max(box.bottom for box in boxes),
        )
        root.children.append(OcrElement(ocr_class=OcrClass.PARAGRAPH, bbox=line.bbox, children=[line]))
    return root


_Word = tuple[str, tuple[float, float, float, float], float | None]


def _lines(page: dict[str, Any], size: tuple[int, int]) -> Iterator[list[_Word]]:
    """Yield the words of each line; where nobody placed them, they share their line's box by their lengths, or the page's."""
    stored = page.get("words") or ()
    if stored:
        # A word is an array: text, box, confidence, line, …
        for _, words in groupby(stored, key=lambda word: word[3]):
            yield [(text, tuple(box), confidence) for text, box, confidence, *_ in words]
        return
    known = [(line["text"], line["box"], line.get("confidence")) for line in page.get("lines") or ()]
    if not known:
        rows = [row for row in (page.get("text") or "").split("\n") if row.strip()]
        width, step = page.get("width_px") or size[0], (page.get("height_px") or size[1]) / max(1, len(rows))
        known = [(row, (0, step * at, width, step * (at + 1)), None) for at, row in enumerate(rows)]
    for text, (x0, y0, x1, y1), confidence in known:
        words, at = text.split(), 0
        each = (x1 - x0) / max(1, len(" ".join(words)))
        found: list[_Word] = []
        for word in words:
            found.append((word, (x0 + at * each, y0, x0 + (at + len(word)) * each, y1), confidence))
            at += len(word) + 1
        if found:
            yield found


class _Server:
    """An ocrfleet server: a page image becomes a document of one page."""

    def __init__(self, url: str, timeout: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise OcrfleetError(f"--ocrfleet-url {url}: it must begin with http:// or https://")
        self._url = url.rstrip("/")
        self._until = time.monotonic() + timeout
        self._timeout = timeout
        # Nobody but this server gets the token.
        self._opener = urllib.request.build_opener(_NoRedirect)

    def read(self, image: Path) -> dict[str, Any]:
        """Return the record of the page. Raises OcrfleetError."""
        kind = "jpeg" if image.suffix.lower() in {".jpg", ".jpeg"} else "png"
        document = self._ask("/v1/documents", image.read_bytes(), kind)["id"]
        pause = _FIRST_PAUSE
        while not _ended(self._ask(f"/v1/documents/{document}")):
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        page = self._ask(f"/v1/documents/{document}/pages/1")
        if page.get("status") != "done":
            raise OcrfleetError(f"ocrfleet could not read a page: {page.get('detail') or page.get('reason')}")
        return page

    def _ask(self, path: str, body: bytes | None = None, kind: str = "") -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if token := os.environ.get("OCRFLEET_TOKEN"):
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = f"image/{kind}"
        pause = _FIRST_PAUSE
        while True:
            if time.monotonic() > self._until:
                raise OcrfleetError(f"ocrfleet did not read a page within {self._timeout:g} s: see --ocrfleet-timeout")
            request = urllib.request.Request(self._url + path, data=body, headers=headers)  # noqa: S310 - see above
            try:
                with self._opener.open(request, timeout=_REQUEST) as response:
                    answer = json.loads(response.read(_LARGEST))
                    return answer if isinstance(answer, dict) else {}
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _BUSY:
                        raise OcrfleetError(
                            f"{self._url}{path}: {error.code} {error.reason}: {_detail(error)}"
                        ) from error
            except (urllib.error.URLError, OSError, ValueError) as error:
                if body is not None and isinstance(error, urllib.error.URLError):
                    raise OcrfleetError(f"{self._url} can't be reached: {error.reason}") from error
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _ended(document: dict[str, Any]) -> bool:
    return document.get("state") in {"completed", "partial", "failed", "cancelled"}


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(1 << 16)).get("detail", ""))
    except (ValueError, AttributeError, OSError):
        return ""


class _LocalReader:
    """A process of ocrfleet's CPU engine: it loads its models once, and reads one image at a time."""

    def __init__(self) -> None:
        if importlib.util.find_spec("worker") is None:
            raise OcrfleetError("install ocrfleet here, or name a server with --ocrfleet-url")
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", _READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        atexit.register(self._process.kill)

    def read(self, image: Path) -> dict[str, Any]:
        """Return the record of the page. Raises OcrfleetError."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101 - as above
        with self._lock:
            try:
                self._process.stdin.write(json.dumps({"path": str(image.absolute())}) + "\n")
                self._process.stdin.flush()
                answer = json.loads(self._process.stdout.readline() or "{}")
            except (OSError, ValueError) as error:
                raise OcrfleetError("ocrfleet's engine ended") from error
        if "page" not in answer:
            raise OcrfleetError(f"ocrfleet could not read a page: {answer.get('error', 'its engine ended')}")
        return dict(answer["page"])


_local: list[_LocalReader] = []
_starting = threading.Lock()


def _local_reader() -> _LocalReader:
    """Return this process's reader; OCRmyPDF may use several processes, each with its own."""
    with _starting:
        if not _local:
            _local.append(_LocalReader())
        return _local[0]
