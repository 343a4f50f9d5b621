"""Webhook client: allowed addresses, and signatures."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from producer.delivery.webhook import CallbackError, DeliveryResult, WebhookClient, check_url, tenant_secret
from tests.support.fakes.webhook_receiver import IntakeScheduler

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - a test's
ID = "0123456789abcdef" * 2


@pytest.fixture
def receiver() -> Iterator[IntakeScheduler]:
    with IntakeScheduler() as made:
        yield made


def test_a_delivery_is_signed_as_the_standard_has_it(receiver: IntakeScheduler) -> None:
    body = json.dumps({"type": "document.ended", "data": {"name": "Köln"}}).encode()
    assert WebhookClient(SecretStr(SECRET), private=True).send(receiver.url, ID, body) == (DeliveryResult.DELIVERED, "")
    ((headers, got),) = receiver.got
    # The standard's own library verifies it, and refuses another body
    assert Webhook(SECRET).verify(got, headers) == json.loads(body)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(got + b" ", headers)
    assert headers["webhook-id"] == ID


def test_without_a_secret_there_is_no_signature(receiver: IntakeScheduler) -> None:
    WebhookClient(None, private=True).send(receiver.url, ID, b"{}")
    assert "webhook-signature" not in receiver.got[0][0]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(receiver: IntakeScheduler, status: int) -> None:
    receiver.status, receiver.headers = status, {"Location": receiver.url}
    answer, reason = WebhookClient(None, private=True).send(receiver.url, ID, b"{}")
    assert (answer, reason) == (DeliveryResult.FAILED, f"answered {status}")
    assert len(receiver.got) == 1


def test_a_receiver_may_say_that_it_wants_no_more(receiver: IntakeScheduler) -> None:
    receiver.status = 410
    assert WebhookClient(None, private=True).send(receiver.url, ID, b"{}")[0] is DeliveryResult.GONE


def test_an_unreachable_receiver_is_a_failure_with_a_reason() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer, reason = WebhookClient(None, private=True).send(
            f"http://127.0.0.1:{taken.getsockname()[1]}/", ID, b"{}"
        )
    assert answer is DeliveryResult.FAILED
    assert "Connect" in reason


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",  # not encrypted
        "ftp://example.com/",
        "https://user:secret@example.com/",
        "https://example.com/#part",
        "https:///path",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://[::1",
        "https://example.com/a b",
        "https://exämple.com/",
        "https://example.com/" + "x" * 2000,
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[fe80::1]/",
        "https://[fc00::1]/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://100.64.0.1/",
    ],
)
def test_urls_that_lead_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(CallbackError):
        check_url(url, private=False)


@pytest.mark.parametrize("url", ["https://example.com/hook?x=1", "https://example.com:8443/", "https://93.184.215.14/"])
def test_urls_of_the_internet_are_fine(url: str) -> None:
    assert check_url(url, private=False) == url


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "017700000001", "127.1", "localhost"])
def test_other_ways_to_write_loopback_are_seen_through_when_the_address_is_known(
    host: str, receiver: IntakeScheduler
) -> None:
    answer, reason = WebhookClient(None, private=False).send(f"https://{host}:{receiver.server_port}/", ID, b"{}")
    assert answer is DeliveryResult.FAILED
    assert "public address" in reason or "getaddrinfo" in reason or "gaierror" in reason
    assert receiver.got == []


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Have every lookup answered by the next of these, the last one again and again; return whom it was asked about."""
    asked: list[str] = []
    left = list(answers)

    async def getaddrinfo(_: Any, host: str, port: int, **__: Any) -> list[Any]:
        asked.append(host)
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_with_any_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["93.184.215.14", "10.0.0.1"])
    answer, reason = WebhookClient(None, private=False).send("https://rebind.example/", ID, b"{}")
    assert (answer, reason) == (DeliveryResult.FAILED, "rebind.example is at 10.0.0.1, which is no public address")


def test_the_address_that_was_checked_is_the_one_connected_to(
    monkeypatch: pytest.MonkeyPatch, receiver: IntakeScheduler
) -> None:
    # Given a name whose address changes after it was looked up
    asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    url = f"http://rebind.example:{receiver.server_port}/hook"
    assert WebhookClient(None, private=True).send(url, ID, b"{}") == (DeliveryResult.DELIVERED, "")
    # Then it was resolved once, and the receiver was called by its name
    assert [host for host in asked if host == "rebind.example"] == ["rebind.example"]
    assert receiver.got[0][0]["host"] == f"rebind.example:{receiver.server_port}"


def test_a_receiver_that_never_responds_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.delivery.webhook._DEADLINE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer, reason = WebhookClient(None, private=True).send(
            f"http://127.0.0.1:{silent.getsockname()[1]}/", ID, b"{}"
        )
    assert answer is DeliveryResult.FAILED
    assert "no response" in reason


def test_a_tenant_can_check_its_own_webhooks_and_make_up_no_others(receiver: IntakeScheduler) -> None:
    secret = SecretStr(SECRET)
    WebhookClient(secret, private=True).send(receiver.url, ID, b"{}", tenant="acme")
    ((headers, sent),) = receiver.got
    assert Webhook(tenant_secret(secret, "acme")).verify(sent, headers) == {}
    for other in (SECRET, tenant_secret(secret, "brick")):
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(other).verify(sent, headers)
