"""`serve` as a process: a large upload takes no memory, and the process ends on SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.fakes.numbered import write_book
from tests.support.servers import Valkey, free_ports
from tests.support.waiting import scaled, until

TOKEN = "t" * 32
_LARGE = 200 << 20
_CONNECTIONS = 20
_COMMAND = str(Path(sys.executable).with_name("ocrfleet"))


class Serving:
    def __init__(self, folder: Path, valkey: Valkey) -> None:
        port, self.health = free_ports(2)
        environment = {
            **os.environ,
            "OCRFLEET_STORE": str(folder / "store"),
            "OCRFLEET_REDIS_URL": valkey.url,
            "OCRFLEET_API_TOKENS": TOKEN,
            "OCRFLEET_API_CONNECTIONS": str(_CONNECTIONS),
            "OCRFLEET_METRICS_PORT": str(self.health),
            "TMPDIR": str(folder),
        }
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [_COMMAND, "serve", "--port", str(port)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=self.log,
        )
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=scaled(60)
        )
        until(self._ready, otherwise=self.said)

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.said()
        try:
            return self.client.get("/readyz").is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def serving(tmp_path: Path, valkey: Valkey) -> Iterator[Serving]:
    made = Serving(tmp_path, valkey)
    yield made
    made.close()


@pytest.mark.parametrize("as_form", [False, True])
def test_a_large_upload_takes_no_memory(serving: Serving, tmp_path: Path, *, as_form: bool) -> None:
    # Given a small image in a large file
    path = write_book(tmp_path / "large.tif", [1, 2])
    os.truncate(path, _LARGE)
    serving.client.post("/v1/documents", content=b"warm", headers={"Content-Type": "image/tiff"})
    server = psutil.Process(serving.process.pid)
    before = most = server.memory_info().rss
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(scaled(0.02)):
            most = max(most, server.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    # When it is sent
    with path.open("rb") as file:
        answer = (
            serving.client.post("/v1/documents", files={"file": ("large.tif", file)})
            if as_form
            else serving.client.post("/v1/documents", content=file, headers={"Content-Type": "image/tiff"})
        )
    ended.set()
    watching.join()
    # Then it is a document, and the server has not grown by much
    assert (answer.status_code, answer.json()["total"]) == (201, 2), answer.text
    assert most - before < 40 << 20
    assert [entry.stat().st_size for entry in (tmp_path / "store" / "uploads").iterdir() if entry.is_file()] == [_LARGE]


def test_serve_ends_at_once_while_a_client_follows_a_document(serving: Serving, tmp_path: Path) -> None:
    # Given a document without a worker, and a client that waits for its end
    image = write_book(tmp_path / "a.tif", [1]).read_bytes()
    place = serving.client.post("/v1/documents", files={"file": ("a.tif", image)}).headers["location"]
    children = psutil.Process(serving.process.pid).children(recursive=True)
    with serving.client.stream("GET", f"{place}/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: progress"
        # When the server gets SIGTERM
        serving.process.send_signal(signal.SIGTERM)
        # Then the stream ends, and the server and its child processes exit
        assert "event: ended" not in list(lines)
    assert serving.process.wait(scaled(30)) == 0, serving.said()
    _, alive = psutil.wait_procs(children, timeout=scaled(5))
    assert alive == []


def test_clients_that_hold_all_connections_do_not_make_it_look_dead(serving: Serving) -> None:
    # Given more half-open connections than are allowed
    port = serving.client.base_url.port or 0
    with ExitStack() as stack:
        for _ in range(_CONNECTIONS + 5):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=scaled(30)))
            silent.sendall(b"GET /healthz HTTP/1.1\r\n")
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=scaled(30)).status_code == 503)
        # Then health and metrics answer at their own port
        for path in ("healthz", "readyz", "metrics"):
            assert httpx.get(f"http://127.0.0.1:{serving.health}/{path}", timeout=scaled(30)).status_code == 200
    # And the API does once the connections are gone
    until(serving._ready)


def test_a_port_that_is_taken_is_said(serving: Serving, tmp_path: Path) -> None:
    # Only the first one gets to listen; the second has begun nothing that must be ended
    taken = serving.client.base_url.port
    command = [_COMMAND, "serve", "--port", str(taken)]
    environment = {**os.environ, "OCRFLEET_STORE": str(tmp_path / "other")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=scaled(30), check=False)
    assert ended.returncode != 0
    assert f"--port {taken} can't be listened on" in ended.stderr
