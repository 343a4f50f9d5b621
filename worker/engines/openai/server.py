"""The connection to a server of OpenAI's protocol: address, key, the SDK's client, and messages without secrets."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ocrfleet.errors import ConfigurationError
from worker.engines.openai.response import message_of

if TYPE_CHECKING:
    import httpx2
    import openai

    from ocrfleet.settings import OpenAiSettings

#: Characters of a server's message that are shown.
_LONGEST_MESSAGE = 300
#: Bytes of a response, at most: 8192 tokens, each in an event of 2 KiB.
_LONGEST_ANSWER = 16 << 20
#: Seconds to connect.
_CONNECT = 10.0
#: The key to send where there is none: the SDK requires one, and `vllm serve` ignores it.
_NO_KEY = "none"


@dataclass(frozen=True)
class Server:
    """A server and the client for it."""

    #: the SDK's client
    client: Any
    #: host name and port, for messages
    host: str
    #: base URL without the protocol's version, such as /v1
    root: str
    #: errors of the SDK and of its HTTP client
    foreign: tuple[type[Exception], ...]
    #: strings to remove from every message that comes from outside
    secrets: tuple[str, ...]

    def message(self, error: Exception) -> str:
        """Return an error's message for people: the server's, or that of the failed connection."""
        return self.shown(message_of(error))

    def shown(self, text: str) -> str:
        """Return text from outside in a safe form: without secrets, on one line, and short."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        text = " ".join(text.split())
        return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


def connect(settings: OpenAiSettings) -> Server:
    """Return the server that the settings name, without sending anything. Raises ConfigurationError."""
    base_url = settings.base_url.get_secret_value().strip() if settings.base_url is not None else ""
    if not base_url:
        raise ConfigurationError("--engine openai needs the server's address: --base-url http://HOST:PORT/v1")
    try:
        url = urlsplit(base_url)
        host = f"{url.hostname}:{url.port}" if url.port else url.hostname
    except ValueError:
        host = None
    # The message does not repeat the address: it may contain a password.
    if not host or url.scheme not in {"http", "https"}:
        raise ConfigurationError("--base-url is no address of a server; an example: http://127.0.0.1:8000/v1")
    given = settings.api_key.get_secret_value().strip() if settings.api_key else ""
    key = given or os.environ.get("OPENAI_API_KEY", "").strip() or _NO_KEY
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError("OCRFLEET_OPENAI_API_KEY, or OPENAI_API_KEY, has characters in it that no key has")
    headers = {}
    secrets = [key, url.password, unquote(url.password or "")]
    if url.username and not given:
        # httpx would do the same, but log the address with the password.
        login = base64.b64encode(f"{unquote(url.username)}:{unquote(url.password or '')}".encode()).decode()
        headers["Authorization"] = f"Basic {login}"
        secrets.insert(0, login)
    address = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    client, foreign = _client_of(address, key, headers, settings)
    return Server(
        client=client,
        host=host,
        root=address.rstrip("/").removesuffix("/v1"),
        foreign=foreign,
        secrets=tuple(secret for secret in secrets if secret and secret != _NO_KEY),
    )


def _client_of(
    address: str, key: str, headers: dict[str, str], settings: OpenAiSettings
) -> tuple[openai.AsyncOpenAI, tuple[type[Exception], ...]]:
    """Return the SDK's client and the errors that it raises. Raises ConfigurationError if the SDK is not installed."""
    try:
        import httpx2  # noqa: PLC0415 - takes most of a second, and workers with other engines don't need it
        import openai  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("--engine openai needs a package more: pip install 'ocrfleet[openai]'") from None

    class Client(openai.DefaultAsyncHttpxClient):
        async def send(self, request: httpx2.Request, **how: Any) -> httpx2.Response:
            try:
                return await super().send(request, **how)
            except httpx2.ReadTimeout as error:
                # The SDK would retry, and pay for the page again each time. It does not retry its own APITimeoutError.
                raise openai.APITimeoutError(request) from error

    async def bound(response: httpx2.Response) -> None:
        """Make a response fail if it gets too long: the SDK would accept a line, or a list of models, of any length."""
        unbounded = response.aiter_bytes

        async def aiter_bytes(chunk_size: int | None = None) -> AsyncGenerator[bytes, None]:
            length = 0
            async with aclosing(unbounded(chunk_size)) as pieces:
                async for piece in pieces:
                    length += len(piece)
                    if length > _LONGEST_ANSWER:
                        raise openai.OpenAIError(f"it is longer than {_LONGEST_ANSWER} bytes")  # not retried
                    yield piece

        # The SDK and the client both read by this method, after decompression.
        response.aiter_bytes = aiter_bytes  # type: ignore[method-assign]

    # The SDK logs the page image at debug level; the HTTP client logs every request at info level.
    for name, level in (("openai", logging.INFO), ("httpx2", logging.WARNING), ("httpcore2", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(max(level, logger.getEffectiveLevel()))
    client = openai.AsyncOpenAI(
        base_url=address,
        api_key=key,
        default_headers=headers,
        max_retries=settings.retries,
        timeout=openai.Timeout(settings.timeout, connect=min(_CONNECT, settings.timeout)),
        http_client=Client(
            limits=httpx2.Limits(max_keepalive_connections=settings.concurrency), event_hooks={"response": [bound]}
        ),
    )
    return client, (openai.OpenAIError, httpx2.HTTPError)
