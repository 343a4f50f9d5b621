"""A server of OpenAI chat completions with behaviour set by the test, over real sockets.

What it does with each request to write stands in `script`, one behaviour after another, the last one for ever. All that
it was asked is in `asked`.
"""

from __future__ import annotations

import json
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.waiting import scaled, until

DEEPSEEK = "deepseek-ai/DeepSeek-OCR"
USAGE = {"prompt_tokens": 900, "completion_tokens": 7, "total_tokens": 907}


@dataclass
class Asked:
    """A request to write."""

    body: dict[str, Any]
    #: by names in small letters
    headers: dict[str, str]
    at: float


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Longer than any test: an unclosed connection does not outlive them.
    timeout = scaled(20)
    # Headers and body are two writes, and the second would wait 40 ms for the first's acknowledgement.
    disable_nagle_algorithm = True

    @property
    def chats(self) -> ChatServer:
        return self.server.chats  # type: ignore[attr-defined,no-any-return]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.chats.models_refusal is not None and self.path.endswith("/models"):
            self.reply(*self.chats.models_refusal)
        elif self.path == f"{self.chats.prefix}/v1/models":
            self.reply(200, {"object": "list", "data": self.chats.models})
        elif self.path == f"{self.chats.prefix}/version" and self.chats.version is not None:
            self.reply(200, {"version": self.chats.version})
        else:
            self.reply(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.chats.lock:
            number = len(self.chats.asked)
            self.chats.asked.append(
                Asked(body, {name.lower(): told for name, told in self.headers.items()}, time.monotonic())
            )
            self.chats.busy += 1
            self.chats.most_at_once = max(self.chats.most_at_once, self.chats.busy)
        behaviour = self.chats.script[min(number, len(self.chats.script) - 1)]
        try:
            behaviour(self, body)
        except ConnectionError:
            self.close_connection = True
        finally:
            with self.chats.lock:
                self.chats.busy -= 1

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_event(self, event: Any) -> None:
        data = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def wait_until_left(self) -> None:
        """Wait until the client closes the connection, or the server stops."""
        while not self.chats.stopping.is_set():
            try:
                left = select.select([self.connection], [], [], 0.02)[0] and not self.connection.recv(1)
            except OSError:  # it closed the connection before it had read everything
                left = True
            if left:
                self.chats.left.set()
                break
        self.close_connection = True


Behaviour = Callable[[Handler, dict[str, Any]], None]


@dataclass
class ChatServer:
    """Defaults: vLLM with DeepSeek-OCR."""

    script: list[Behaviour] = field(default_factory=lambda: [says("hello")])
    models: Any = field(default_factory=lambda: [model(DEEPSEEK)])
    version: str | None = "0.32.0"
    #: answers a request for the list of models instead
    models_refusal: tuple[int, Any] | None = None
    #: the path that the server lies under
    prefix: str = ""

    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0
    most_at_once: int = 0
    #: a client closed its connection before it had its answer
    left: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # joined in the end, so that no socket is left open
        self._server.chats = self  # type: ignore[attr-defined]
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that leave are expected
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_until_asked(self, times: int) -> None:
        until(
            lambda: len(self.asked) >= times,
            seconds=5,
            pause=0.01,
            otherwise=lambda: f"asked {len(self.asked)} times, not {times}",
        )

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}{self.prefix}/v1"


def model(name: str, owner: str = "vllm") -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def chunk(text: str | None, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}


def usage_chunk(usage: dict[str, int] | None = None) -> dict[str, Any]:
    return chunk(None) | {"choices": [], "usage": usage or USAGE}


def whole(text: str, finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": USAGE}


def says(*pieces: str, finish: str = "stop", pause: float = 0.0) -> Behaviour:
    """Stream pieces with a pause (scaled seconds) before each, or send one response without streaming."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        if not body.get("stream"):
            handler.reply(200, whole("".join(pieces), finish))
            return
        handler.begin_stream()
        for piece in pieces:
            time.sleep(scaled(pause))
            handler.send_event(chunk(piece))
        handler.send_event(chunk(None, finish))
        if body.get("stream_options", {}).get("include_usage"):
            handler.send_event(usage_chunk())
        handler.send_event("[DONE]")
        handler.end_stream()

    return behave


def events(*given: Any) -> Behaviour:
    """Stream the given data unchanged, and close normally."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin_stream()
        for event in given:
            handler.send_event(event)
        handler.end_stream()

    return behave


def replies(body: Any, headers: dict[str, str] | None = None) -> Behaviour:
    """Respond without streaming, for any request."""
    return lambda handler, _: handler.reply(200, body, headers)


def refuses(status: int, message: str = "no", headers: dict[str, str] | None = None) -> Behaviour:
    error = {"error": {"message": message, "type": "some_error", "code": status}}
    return lambda handler, _: handler.reply(status, error, headers)


def fussy(field_name: str, then: Behaviour, *, status: int = 400) -> Behaviour:
    """Refuse a request with a field that it does not know (or with it true), as strict servers do."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        if body.get(field_name):
            reason = "streaming is not supported" if field_name == "stream" else "Extra inputs are not permitted"
            handler.reply(status, {"detail": [{"loc": ["body", field_name], "msg": f"{field_name}: {reason}"}]})
        else:
            then(handler, body)

    return behave


def limits_tokens(most: int, message: str, then: Behaviour) -> Behaviour:
    """Reject requests for more tokens; {sent} in the message is the requested number."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        if body["max_tokens"] > most:
            refuses(400, message.format(sent=body["max_tokens"]))(handler, body)
        else:
            then(handler, body)

    return behave


def hangs(*pieces: str) -> Behaviour:
    """Send some pieces, or none, and then hang."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        try:
            if pieces:
                handler.begin_stream()
                for piece in pieces:
                    handler.send_event(chunk(piece))
        except OSError:  # the client disconnected during the response
            handler.chats.left.set()
            handler.close_connection = True
            return
        handler.wait_until_left()

    return behave


def later(seconds: float, then: Behaviour) -> Behaviour:
    """Do nothing for so many scaled seconds first."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        time.sleep(scaled(seconds))
        then(handler, body)

    return behave


def floods(megabytes: int) -> Behaviour:
    """Start an event without an end: one line of this length."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin_stream()
        for _ in range(megabytes):
            handler.wfile.write(b"%x\r\n%s\r\n" % (1 << 20, b"x" * (1 << 20)))
        handler.end_stream()

    return behave


def breaks_off(*pieces: str) -> Behaviour:
    """Close the connection during a response, or before it if there are no pieces."""

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        if pieces:
            handler.begin_stream()
            for piece in pieces:
                handler.send_event(chunk(piece))
        handler.close_connection = True

    return behave
