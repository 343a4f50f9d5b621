"""The API against its OpenAPI description: every request gets a described response."""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Self

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from pydantic import SecretStr
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi

from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.settings import ApiSettings
from producer.api import bodies
from producer.api.app import create_app
from producer.cli import connection
from producer.intake.batches import IntakeBatches
from tests.support.servers import Valkey, free_ports
from tests.support.shelf import Shelf
from tests.support.waiting import rest, scaled, until

TOKEN = "t" * 32


class Running:
    """A server in a thread, over documents in every state."""

    def __init__(self, shelf: Shelf) -> None:
        api = ApiSettings(tokens=SecretStr(TOKEN), upload_bytes=1 << 20)
        self.shelf = shelf
        self.documents = itertools.cycle([shelf.ended(), shelf.ended(failed={2: Reason.EMPTY}), "0" * 32, "x"])
        app = create_app(
            shelf.settings.model_copy(update={"api": api}),
            shelf.store,
            shelf.ledger,
            shelf.registry,
            IntakeBatches(shelf.store),
            profile=RAPIDOCR,
        )
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            app,
            port=self.port,
            log_config=None,
            access_log=False,
            ws="none",
            http=connection.Connection,
            limit_concurrency=20,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Self:
        self._thread.start()
        until(self._is_ready)
        return self

    def _is_ready(self) -> bool:
        assert self._thread.is_alive()
        return self._server.started

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.shelf.registry.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    valkey = Valkey()
    with Running(Shelf(tmp_path_factory.mktemp("api"), valkey.url)) as made:
        yield made
    valkey.close()


_CHECKS = [
    checks.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_schema_conformance,
    openapi.response_headers_conformance,
]


def test_no_request_breaks_it(running: Running) -> None:
    # Given its OpenAPI description
    described = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    operations = [result.ok() for result in described.get_all_operations()]  # type: ignore[union-attr]
    operations.sort(key=lambda operation: operation.method == "delete")
    assert len(operations) >= 15
    # When each operation gets valid and invalid requests
    for operation, mode in itertools.product(operations, GenerationMode):
        answers: Counter[int] = Counter()

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=40,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case) -> None:  # type: ignore[type-arg]
            if "document" in (case.path_parameters or {}):
                # Random generation would hardly ever find an existing id.
                case.path_parameters["document"] = next(running.documents)
            # Then the response is in the description, and is no server error
            answer = case.call_and_validate(
                headers={"Authorization": f"Bearer {TOKEN}"}, checks=_CHECKS, timeout=scaled(20)
            )
            answers[answer.status_code] += 1  # noqa: B023 - called before the next turn

        with suppress(Unsatisfiable):  # where nothing can be wrong with a request
            ask()
        print(operation.label, mode.value, dict(answers))  # noqa: T201 - shown when it fails


def test_it_is_ready_as_long_as_redis_and_the_store_are(running: Running) -> None:
    assert httpx.get(f"{running.url}/readyz", timeout=scaled(30)).json() == {"status": "ok"}


def test_a_body_that_does_not_come_is_given_up(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a client that sends half of its body, and a short timeout
    monkeypatch.setattr(bodies, "_CHUNK_TIMEOUT", 0.3)
    head = (
        f"POST /v1/documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/pdf\r\n"
    )
    with closing(socket.create_connection(("127.0.0.1", running.port))) as client:
        client.sendall(f"{head}Content-Length: 1000\r\n\r\n%PDF-".encode())
        # Then the server responds with an error and closes the connection
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 408 ")


def test_connections_without_a_request_are_closed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more connections than the limit, none of which sends a complete request
    monkeypatch.setattr(connection, "_HEAD_SECONDS", scaled(0.4))
    with ExitStack() as stack:
        silent = []
        for number in range(25):
            client = stack.enter_context(closing(socket.create_connection(("127.0.0.1", running.port), scaled(30))))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" if number % 2 else b"")
            silent.append(client)
        # Then the server closes each of them
        assert [client.recv(1000) for client in silent] == [b""] * len(silent)
        # And answers others
        assert httpx.get(f"{running.url}/healthz", timeout=scaled(30)).json() == {"status": "ok"}


def test_a_connection_with_a_request_stays(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a time limit for the head of a request that is shorter than the request
    monkeypatch.setattr(connection, "_HEAD_SECONDS", scaled(0.1))
    document = running.shelf.ended()
    with httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=scaled(30)) as client:
        for _ in range(2):
            # Then a body that takes longer is received, and the connection is used again
            def slowly() -> Iterator[bytes]:
                yield b"{"
                rest(0.2)
                yield b"}"

            kind = {"Content-Type": "application/json"}
            assert client.post("/v1/documents", content=slowly(), headers=kind).status_code == 400
            assert client.get(f"/v1/documents/{document}").status_code == 200
