"""Webhook client: one signed POST, as Standard Webhooks 1.0 specifies (standardwebhooks.com).

A callback URL must not give access to the network of this server: the host's addresses are resolved once and checked, the
connection goes to one of the checked addresses, redirects are not followed and no proxy is used.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
import time
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import httpx

from ocrfleet.errors import OcrfleetError

if TYPE_CHECKING:
    from pydantic import SecretStr

#: Seconds for one whole delivery; to connect; between two parts of the response.
_DEADLINE, _CONNECT, _READ = 30.0, 5.0, 10.0
_LONGEST_URL = 2000
_HTTPS, _HTTP = 443, 80
_GONE = 410
#: Prefix of a secret that is base64, as the specification has it.
_ENCODED_SECRET = "whsec_"  # noqa: S105 - a prefix
#: Network by which IPv4 addresses are reached from IPv6 (RFC 6052, section 2.1).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class CallbackError(OcrfleetError):
    """A callback URL that is refused."""


class DeliveryResult(StrEnum):
    """Result of an attempt at a delivery."""

    DELIVERED = "delivered"
    #: the receiver answered 410: it wants no further events
    GONE = "gone"
    FAILED = "failed"


def check_url(url: str, *, private: bool) -> str:
    """Return the URL if it is allowed, as far as that is known without resolving its host.

    `private` also allows http:// and addresses that are not public. Raises CallbackError.
    """
    _parts(url, private=private)
    return url


def _parts(url: str, *, private: bool) -> SplitResult:
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise CallbackError(f"the callback is no URL: {error}") from error
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise CallbackError(f"the callback must be printable ASCII, {_LONGEST_URL} characters at most")
    if parts.scheme != "https" and not (private and parts.scheme == "http"):
        raise CallbackError("the callback must be https:// (http:// only with OCRFLEET_WEBHOOK_PRIVATE=1)")
    if not host or port == 0 or parts.username is not None or parts.password is not None or parts.fragment:
        raise CallbackError("the callback must have a host, and neither a user, a password nor a fragment")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return parts
    if not private and not is_public(address):
        raise CallbackError(f"the callback is at {address}, which is no public address")
    return parts


def is_public(address: Address) -> bool:
    """Return whether an address is public, and does not embed one that is not."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class WebhookClient:
    """Sends deliveries, signed where there is a secret. Thread-safe."""

    def __init__(self, secret: SecretStr | None, *, private: bool) -> None:
        self._key = None if secret is None else _key(secret.get_secret_value())
        self._private = private

    def send(self, url: str, delivery: str, body: bytes, *, tenant: str | None = None) -> tuple[DeliveryResult, str]:
        """Post the body of a delivery with this id; return the result, and in words the reason of a failure.

        `tenant` names the tenant whose secret signs it; None: the default one.
        """
        try:
            return asyncio.run(asyncio.wait_for(self._send(url, delivery, body, tenant), _DEADLINE))
        except CallbackError as error:
            return DeliveryResult.FAILED, str(error)
        except TimeoutError:
            return DeliveryResult.FAILED, f"no response within {_DEADLINE:g} seconds"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            return DeliveryResult.FAILED, f"{type(error).__name__}: {error}"[:200]

    async def _send(self, url: str, delivery: str, body: bytes, tenant: str | None) -> tuple[DeliveryResult, str]:
        parts = _parts(url, private=self._private)
        host = parts.hostname or ""
        address = await self._address(host, parts.port or (_HTTPS if parts.scheme == "https" else _HTTP))
        at = f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004 - IPv6
        pinned = parts._replace(netloc=at if parts.port is None else f"{at}:{parts.port}").geturl()
        timeout = httpx.Timeout(_READ, connect=_CONNECT)
        headers = {"Host": parts.netloc, "Content-Type": "application/json", "User-Agent": "ocrfleet"}
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=timeout) as client,
            # The connection goes to an address, but the certificate must be the host's.
            client.stream(
                "POST",
                pinned,
                content=body,
                headers=headers | self._signed(delivery, body, tenant),
                extensions={"sni_hostname": host},
            ) as response,
        ):
            if response.is_success:
                return DeliveryResult.DELIVERED, ""
            return (
                DeliveryResult.GONE if response.status_code == _GONE else DeliveryResult.FAILED,
                f"answered {response.status_code}",
            )

    async def _address(self, host: str, port: int) -> Address:
        """Return an address to connect to. Raises CallbackError when one of the host's addresses is not public."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(facts[4][0]).partition("%")[0]) for facts in found]
        for address in addresses:
            if not self._private and not is_public(address):
                raise CallbackError(f"{host} is at {address}, which is no public address")
        if not addresses:
            raise CallbackError(f"{host} has no address")
        return addresses[0]

    def _signed(self, delivery: str, body: bytes, tenant: str | None) -> dict[str, str]:
        timestamp = str(int(time.time()))
        headers = {"webhook-id": delivery, "webhook-timestamp": timestamp}
        if self._key is None:
            return headers
        content = b".".join((delivery.encode(), timestamp.encode(), body))
        key = self._key if tenant is None else _key_of(self._key, tenant)
        digest = hmac.digest(key, content, hashlib.sha256)
        return headers | {"webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}


def tenant_secret(secret: SecretStr, tenant: str) -> str:
    """Return the secret of a tenant that is not the default one: it can check its own webhooks, and make up no other's."""
    return _ENCODED_SECRET + base64.b64encode(_key_of(_key(secret.get_secret_value()), tenant)).decode()


def _key_of(key: bytes, tenant: str) -> bytes:
    return hmac.digest(key, f"tenant {tenant}".encode(), hashlib.sha256)


def _key(secret: str) -> bytes:
    if secret.startswith(_ENCODED_SECRET):
        return base64.b64decode(secret.removeprefix(_ENCODED_SECRET))
    return secret.encode()
