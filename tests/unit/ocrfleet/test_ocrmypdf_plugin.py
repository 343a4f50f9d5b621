"""The engine for OCRmyPDF against a server that answers as ours does; tests/acceptance/test_ocrmypdf.py has the real ones."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ocrmypdf._options import OcrOptions
from ocrmypdf.exceptions import ExitCode
from ocrmypdf.hocrtransform import BoundingBox
from PIL import Image

from ocrfleet.ocrmypdf_plugin import OcrfleetEngine, OcrfleetError
from tests.support.searchable_pdf import result
from tests.support.waiting import scaled


class Api:
    """Answers in turn: (status, body) for each path."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, dict[str, Any]]]] = {
            "/v1/documents": [(201, {"id": "ab", "state": "waiting"})],
            "/v1/documents/ab": [(200, {"state": "active"}), (200, {"state": "completed"})],
            "/v1/documents/ab/pages/1": [(200, result().model_dump(mode="json"))],
        }
        self.asked: list[tuple[str, str | None]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append((self.path, self.headers.get("Authorization")))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                left = api.answers[self.path]
                status, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            do_POST = do_GET  # noqa: N815 - as above

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    yield server
    server.close()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.png"
    # Twice the size of what the server read.
    Image.new("L", (1200, 1600), 255).save(path, dpi=(300, 300))
    return path


def read(page: Path, url: str, timeout: float = 30) -> Any:
    options = cast("OcrOptions", SimpleNamespace(ocrfleet_url=url, ocrfleet_timeout=timeout))
    return OcrfleetEngine.generate_ocr(page, options, 3)


def test_words_are_in_pixels_of_the_image_that_was_sent(api: Api, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCRFLEET_TOKEN", "secret")

    tree, text = read(page, api.url + "/")

    assert text.splitlines()[0] == "The ﬁrst line"
    assert [word.text for word in tree.words] == ["The", "ﬁrst", "line", "über", "hyphen-", "ated", "words."]
    assert tree.words[0].bbox == BoundingBox(120, 200, 220, 248)
    assert len(tree.lines) == 3
    assert (tree.page_number, tree.dpi) == (3, pytest.approx(300, abs=0.1))
    assert {token for _, token in api.asked} == {"Bearer secret"}


def test_a_page_without_placed_words_shares_its_lines(api: Api, page: Path) -> None:
    lines = [{"text": "two words", "box": [0, 0, 90, 20], "confidence": 0.5}]
    record = result(()).model_dump(mode="json") | {"lines": lines, "text": "two words"}
    api.answers["/v1/documents/ab/pages/1"] = [(200, record)]

    tree, _ = read(page, api.url)

    assert [(word.text, word.bbox.left, word.bbox.right) for word in tree.words] == [("two", 0, 60), ("words", 80, 180)]


def test_a_busy_server_is_asked_again(api: Api, page: Path) -> None:
    api.answers["/v1/documents"].insert(0, (503, {"detail": "full"}))
    api.answers["/v1/documents/ab"].insert(0, (502, {}))

    assert read(page, api.url)[0].words


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        ("/v1/documents", (401, {"detail": "no token"}), "no token"),
        ("/v1/documents/ab", (302, {}), "302"),
        ("/v1/documents/ab/pages/1", (200, {"status": "failed", "reason": "empty", "detail": "no text"}), "no text"),
    ],
)
def test_what_goes_wrong_is_said(
    api: Api, page: Path, path: str, answer: tuple[int, dict[str, Any]], said: str
) -> None:
    api.answers[path] = [answer]

    with pytest.raises(OcrfleetError, match=said):
        read(page, api.url)


def test_a_page_that_takes_too_long_is_given_up(api: Api, page: Path) -> None:
    api.answers["/v1/documents/ab"] = [(200, {"state": "active"})]

    with pytest.raises(OcrfleetError, match="--ocrfleet-timeout"):
        read(page, api.url, timeout=scaled(0.3))


def test_a_server_that_is_away_is_named(page: Path) -> None:
    with pytest.raises(OcrfleetError, match="can't be reached"):
        read(page, "http://127.0.0.1:9")
    with pytest.raises(OcrfleetError, match="must begin with http"):
        read(page, "file:///etc/passwd")


def test_a_renderer_that_takes_pages_from_the_engine_is_refused_before_a_page_is_read(tmp_path: Path) -> None:
    scan, out = tmp_path / "scan.png", tmp_path / "out.pdf"
    Image.new("L", (300, 300), 255).save(scan, dpi=(100, 100))
    command = [
        str(Path(sys.executable).with_name("ocrmypdf")),
        "--plugin",
        "ocrfleet.ocrmypdf_plugin",
        "--pdf-renderer",
    ]
    result = subprocess.run([*command, "sandwich", scan, out], capture_output=True, text=True, check=False)
    assert result.returncode == ExitCode.bad_args
    assert "--pdf-renderer fpdf2" in result.stderr
    assert "Traceback" not in result.stderr
    assert not out.exists()
