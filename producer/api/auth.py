"""Authentication: bearer tokens; without tokens, only requests from this machine."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from ocrfleet.errors import ConfigurationError
from producer.api.problems import ProblemError
from producer.errors import UsageError
from producer.triggers.filters import Allowed

if TYPE_CHECKING:
    from ocrfleet.settings import ApiSettings

_LEAST_LENGTH = 16

_bearer = HTTPBearer(auto_error=False, description="One of OCRFLEET_API_TOKENS; not needed where none is set.")
Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def check_address(host: str, settings: ApiSettings) -> None:
    """Raise ConfigurationError for tokens that are easy to guess, or when there are none and other machines can connect."""
    tokens = settings.accepted_tokens()
    for token in (*tokens, *_event_tokens(settings)):
        if len(token) < _LEAST_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigurationError(
                f"OCRFLEET_API_TOKENS, OCRFLEET_API_EVENT_TOKEN: a token must have {_LEAST_LENGTH} characters at least, all of "
                "them printable ASCII without spaces; make one with: openssl rand -hex 32"
            )
    if not tokens and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} can be reached from other machines without a token: set OCRFLEET_API_TOKENS (make one "
            "with: openssl rand -hex 32), or serve on 127.0.0.1"
        )


def allowed_sources(settings: ApiSettings) -> Allowed:
    """Return the prefixes in which sources may be named. Raises ConfigurationError."""
    try:
        return Allowed(settings.allowed_sources())
    except UsageError as error:
        raise ConfigurationError(f"OCRFLEET_API_SOURCES: {error}") from error


def is_loopback(host: str) -> bool:
    """Return whether a host name or address means this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Authenticator:
    """Checks the tokens of requests. Each call raises ProblemError (401, 403) for a request that is refused."""

    def __init__(self, settings: ApiSettings) -> None:
        self._users = [_digest(token) for token in settings.accepted_tokens()]
        self._reporters = [_digest(token) for token in _event_tokens(settings)]

    def user(self, request: Request, token: str | None) -> str:
        """Return an identifier of the token that a request has; "" where no tokens are set."""
        if not self._users:
            _check_local(request)
            return ""
        if token is None:
            raise _unauthorized('Bearer realm="ocrfleet"')
        digest = _digest(token)
        if not _among(digest, self._users):
            raise _unauthorized('Bearer realm="ocrfleet", error="invalid_token"')
        return digest.hex()

    def reporter(self, request: Request) -> None:
        """Accept a request to the events endpoint: with the event token, with or without "Bearer", or with any other token."""
        if not self._users and not self._reporters:
            _check_local(request)
            return
        # MinIO sends its setting as it is, with or without "Bearer".
        header = request.headers.get("authorization", "")
        digest = _digest(header[7:].strip() if header[:7].lower() == "bearer " else header)
        if not _among(digest, [*self._users, *self._reporters]):
            raise _unauthorized('Bearer realm="ocrfleet"')


def user(request: Request, credentials: Bearer) -> str:
    """Authenticator.user as a dependency."""
    authenticator: Authenticator = request.app.state.context.authenticator
    return authenticator.user(request, credentials.credentials if credentials is not None else None)


def reporter(request: Request, _credentials: Bearer) -> None:
    """Authenticator.reporter as a dependency."""
    authenticator: Authenticator = request.app.state.context.authenticator
    authenticator.reporter(request)


User = Annotated[str, Depends(user)]


def _event_tokens(settings: ApiSettings) -> tuple[str, ...]:
    return (settings.event_token.get_secret_value(),) if settings.event_token is not None else ()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _among(digest: bytes, known: Iterable[bytes]) -> bool:
    """Compare with all known digests, in a time that does not depend on which one matches."""
    return any([hmac.compare_digest(digest, one) for one in known])  # noqa: C419 - a generator would stop at the first


def _unauthorized(challenge: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNAUTHORIZED,
        "Send a token of this server: Authorization: Bearer <token>.",
        headers={"WWW-Authenticate": challenge},
    )


def _check_local(request: Request) -> None:
    """Refuse requests that a foreign web page makes a browser on this machine send (CSRF, DNS rebinding)."""
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if not is_loopback(name) or (origin is not None and origin != f"{request.url.scheme}://{host}"):
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            "Without tokens, only requests from this machine to 127.0.0.1 or localhost are answered: set OCRFLEET_API_TOKENS.",
        )
