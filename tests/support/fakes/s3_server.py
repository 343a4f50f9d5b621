"""A server that sends S3 clients the responses of a test, one after the other, and repeats the last one.

For behaviour that a real server can't be made to show: throttling, broken connections, redirects. `asked` has the requests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from ocrfleet.settings import S3Settings
from tests.support.waiting import scaled


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    #: bytes of the body after which the connection breaks
    breaks_at: int | None = None


def refusal(status: int, code: str, message: str = "words", **headers: str) -> Answer:
    """Return an answer as S3 gives it for an error."""
    return Answer(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode(), headers)


@dataclass
class Asked:
    method: str
    #: with its query
    path: str
    #: by names in small letters
    headers: dict[str, str]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = scaled(20)
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        fake: FakeS3 = self.server.fake  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with fake.lock:
            fake.asked.append(Asked(self.command, self.path, headers, body))
            made = fake.script[0] if len(fake.script) == 1 else fake.script.pop(0)
        answer = made() if callable(made) else made
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.breaks_at])
        if answer.breaks_at is not None:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - http.server's names


class FakeS3:
    """Answers, or functions that make one of what was asked before."""

    def __init__(self, *script: Answer | Callable[[], Answer]) -> None:
        self.script = list(script)
        self.asked: list[Asked] = []
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.fake = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def settings(self, **more: object) -> S3Settings:
        endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        return S3Settings.model_validate({"endpoint_url": endpoint, "read_timeout": 5.0, **more})
