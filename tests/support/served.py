"""A fleet as a service with the HTTP API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
from standardwebhooks import Webhook

from tests.support.desk import NUMBERED, Desk
from tests.support.fakes.numbered import write_book
from tests.support.fakes.webhook_receiver import IntakeScheduler
from tests.support.servers import SeaweedFS, Valkey, free_ports
from tests.support.service import Service
from tests.support.waiting import scaled, until

TOKEN = "t" * 32
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - a test's


class Served(Service):
    """A fleet with the HTTP API that reads sources below letters/ of its first bucket, and sends webhooks to a receiver."""

    def __init__(self, desk: Desk, valkey: Valkey, seaweed: SeaweedFS, receiver: IntakeScheduler) -> None:
        super().__init__(
            desk,
            valkey,
            seaweed,
            OCRFLEET_API_TOKENS=TOKEN,
            OCRFLEET_WEBHOOK_SECRET=SECRET,
            OCRFLEET_WEBHOOK_PRIVATE="1",
        )
        self.environment["OCRFLEET_API_SOURCES"] = f"s3://{self.inbox}/letters/"
        self.receiver = receiver
        (self.port,) = free_ports(1)
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=scaled(60)
        )
        desk.plan |= {"wait": [3], "until": str(desk.folder / "go on")}

    def start(self) -> None:
        self.begin("serve", "--port", self.port, *NUMBERED)
        self.begin("worker", *NUMBERED)
        until(self._ready)

    def stop(self) -> None:
        self.client.close()
        super().stop()

    def book(self, *numbers: int) -> bytes:
        return write_book(self.desk.folder / "sent.tif", list(numbers)).read_bytes()

    def go_on(self) -> None:
        """Release page 3, which waits for this."""
        (self.desk.folder / "go on").touch()

    def ended(self, place: str) -> dict[str, Any]:
        """Follow a document to its end; return its view."""
        with self.client.stream("GET", f"{place}/events") as stream:
            *_, (last, _) = events(stream)
        assert last == "ended"
        return self.client.get(place).json()  # type: ignore[no-any-return]

    def fetched(self, place: str, extension: str) -> httpx.Response:
        """Fetch a result without a token, from the redirect target of a request with a token."""
        redirect = self.client.get(f"{place}/result", params={"format": extension})
        assert (redirect.status_code, redirect.headers["cache-control"]) == (307, "no-store")
        assert redirect.headers["location"].startswith(self.seaweed.endpoint)
        answer = httpx.get(redirect.headers["location"], timeout=scaled(30))
        assert answer.status_code == 200, answer.text
        return answer

    def told(self, document: str) -> dict[str, Any]:
        """Return the webhooks of a document, verified by the library of Standard Webhooks."""

        def those() -> list[dict[str, Any]]:
            found = [Webhook(SECRET).verify(body, headers) for headers, body in list(self.receiver.got)]
            return [message for message in found if message["data"]["document"] == document]

        (message,) = until(those)
        return message

    def _ready(self) -> bool:
        try:
            return self.client.get("/readyz").is_success
        except httpx.TransportError:
            return False


def events(stream: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the data of a stream of server-sent events."""
    kind = ""
    for line in stream.iter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))
