"""Authentication: bearer tokens, each of a tenant and with scopes; without tokens, only requests from this machine."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import structlog
from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from ocrfleet.errors import ConfigurationError, TransientError
from ocrfleet.records.base import digest_of, moment
from ocrfleet.records.tenants import DEFAULT
from producer.api.oidc import Oidc
from producer.api.problems import ProblemError
from producer.errors import UsageError
from producer.state.tokens import Scope, Token, Tokens
from producer.triggers.filters import Allowed

if TYPE_CHECKING:
    from ocrfleet.settings import ApiSettings
    from ocrfleet.storage.store import ObjectStore

log = structlog.get_logger(__name__)

#: Seconds for which the tokens in the store are used before they are read again.
_READ_EVERY = 5.0
_LEAST_LENGTH = 16

_bearer = HTTPBearer(
    auto_error=False,
    description="A token of `ocrfleet token create`, or one of OCRFLEET_API_TOKENS; not needed where there is none.",
)
Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def check_address(host: str, settings: ApiSettings, *, stored: bool = False) -> None:
    """Raise ConfigurationError for tokens that are easy to guess, or when there are none and other machines can connect.

    `stored` says whether there are tokens in the store.
    """
    tokens = settings.accepted_tokens()
    for token in (*tokens, *_event_tokens(settings)):
        if len(token) < _LEAST_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigurationError(
                f"OCRFLEET_API_TOKENS, OCRFLEET_API_EVENT_TOKEN: a token must have {_LEAST_LENGTH} characters at least, all of "
                "them printable ASCII without spaces; make one with: openssl rand -hex 32"
            )
    if not tokens and not stored and settings.oidc_issuer is None and not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} can be reached from other machines without a token: make one with `ocrfleet token create`, set "
            "OCRFLEET_API_TOKENS (make one with: openssl rand -hex 32), or serve on 127.0.0.1"
        )


def allowed_sources(settings: ApiSettings, tenant: str = DEFAULT) -> Allowed:
    """Return the prefixes in which a tenant may name sources. Raises ConfigurationError."""
    try:
        return Allowed(settings.allowed_sources(tenant))
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


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request."""

    #: identifier of the token; "" where no tokens are set
    id: str
    tenant: str
    scopes: frozenset[Scope]

    @property
    def client(self) -> str:
        """The name under which it shares places with others: its tenant, in the default tenant its token."""
        return self.id if self.tenant == DEFAULT else self.tenant

    def may(self, *scopes: Scope) -> bool:
        """Return whether it has one of the scopes."""
        return not self.scopes.isdisjoint({Scope.ADMIN, *scopes})


#: Whoever is on this machine, where no tokens are set.
LOCAL = Caller("", DEFAULT, frozenset(Scope))


class Authenticator:
    """Checks the tokens of requests. Each call raises ProblemError (401, 403) for a request that is refused.

    Tokens are those of the setting, which are the default tenant's and may do everything, and those in the store, which are
    read again every few seconds. Calls block, and raise TransientError while the store was never read.
    """

    def __init__(
        self, settings: ApiSettings, store: ObjectStore, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        everything = frozenset(Scope)
        self._set = [
            (_digest(token), Caller(_digest(token).hex(), DEFAULT, everything)) for token in settings.accepted_tokens()
        ]
        self._reporters = [_digest(token) for token in _event_tokens(settings)]
        self._tokens = Tokens(store)
        self._clock = clock
        self._read_at = -math.inf
        self._stored: list[Token] | None = None
        self._reading = threading.Lock()
        # Once there was a token, its removal must not open the API to whoever claims to be local.
        self._oidc = Oidc(settings, clock=clock) if settings.oidc_issuer is not None else None
        self._required = bool(self._set) or self._oidc is not None
        #: metrics name tenants: once there may be several, not everyone may read them
        self._metrics_guarded = settings.metrics_with_token or self._oidc is not None

    def user(self, request: Request, token: str | None) -> Caller:
        """Return who sends a request."""
        known = self._known()
        if not self._required:
            _check_local(request)
            return LOCAL
        if token is None:
            raise _unauthorized('Bearer realm="ocrfleet"')
        caller = _among(_digest(token), known) or self._issued(token)
        if caller is None:
            raise _unauthorized('Bearer realm="ocrfleet", error="invalid_token"')
        return caller

    def reporter(self, request: Request) -> None:
        """Accept a request to the events endpoint: with the event token, with or without "Bearer", or with another token.

        Objects that events report are the default tenant's: so must be the token, with the scope submit.
        """
        known = self._known()
        if not self._required and not self._reporters:
            _check_local(request)
            return
        # MinIO sends its setting as it is, with or without "Bearer".
        header = request.headers.get("authorization", "")
        digest = _digest(header[7:].strip() if header[:7].lower() == "bearer " else header)
        caller = _among(digest, [*known, *((reporter, LOCAL) for reporter in self._reporters)])
        if caller is None:
            raise _unauthorized('Bearer realm="ocrfleet"')
        if caller.tenant != DEFAULT or not caller.may(Scope.SUBMIT):
            raise _forbidden(Scope.SUBMIT)

    def scraper(self, request: Request, token: str | None) -> None:
        """Accept a request for metrics: an administrator's of the default tenant; anyone's while no token is in the store."""
        self._known()
        if not self._metrics_guarded:
            return
        caller = self.user(request, token)
        if caller.tenant != DEFAULT or not caller.may(Scope.ADMIN):
            raise _forbidden(Scope.ADMIN)

    def _issued(self, token: str) -> Caller | None:
        """Return the caller by a token of the issuer, if there is one. Raises ProblemError for one that names no tenant."""
        identity = self._oidc.identity(token) if self._oidc is not None else None
        if identity is None:
            return None
        if identity.tenant is None:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "Your token names no tenant, or the default one: its issuer must add another (OCRFLEET_API_OIDC_TENANT_CLAIM).",
            )
        return Caller(digest_of("oidc", identity.tenant, identity.subject), identity.tenant, identity.scopes)

    def _known(self) -> list[tuple[bytes, Caller]]:
        """Return the tokens that are accepted now, by their digests."""
        if self._clock() - self._read_at > _READ_EVERY and self._reading.acquire(blocking=self._stored is None):
            try:
                self._stored = self._tokens.all()
                self._read_at = self._clock()
            except TransientError as error:
                if self._stored is None:
                    raise
                log.warning("auth.tokens_not_read", error=str(error))
            finally:
                self._reading.release()
        stored = self._stored or []
        self._required |= bool(stored)
        self._metrics_guarded |= bool(stored)
        now = moment()
        return self._set + [
            (bytes.fromhex(token.sha256), Caller(token.sha256, token.tenant, frozenset(token.scopes)))
            for token in stored
            if token.is_valid(now)
        ]


def user(request: Request, credentials: Bearer) -> Caller:
    """Authenticator.user as a dependency."""
    authenticator: Authenticator = request.app.state.context.authenticator
    return authenticator.user(request, credentials.credentials if credentials is not None else None)


def reporter(request: Request, _credentials: Bearer) -> None:
    """Authenticator.reporter as a dependency."""
    authenticator: Authenticator = request.app.state.context.authenticator
    authenticator.reporter(request)


def scraper(request: Request, credentials: Bearer) -> None:
    """Authenticator.scraper as a dependency."""
    authenticator: Authenticator = request.app.state.context.authenticator
    authenticator.scraper(request, credentials.credentials if credentials is not None else None)


User = Annotated[Caller, Depends(user)]


def needs(*scopes: Scope) -> Callable[[Caller], Caller]:
    """Return a dependency that refuses a caller (403) without one of the scopes."""

    def checked(caller: User) -> Caller:
        if not caller.may(*scopes):
            raise _forbidden(*scopes)
        return caller

    return checked


Reader = Annotated[Caller, Depends(needs(Scope.READ, Scope.REVIEW))]
Submitting = Annotated[Caller, Depends(needs(Scope.SUBMIT))]
Retrying = Annotated[Caller, Depends(needs(Scope.SUBMIT, Scope.REVIEW))]
Following = Annotated[Caller, Depends(needs(Scope.SUBMIT, Scope.READ, Scope.REVIEW))]
Deleting = Annotated[Caller, Depends(needs(Scope.DELETE))]


def _event_tokens(settings: ApiSettings) -> tuple[str, ...]:
    return (settings.event_token.get_secret_value(),) if settings.event_token is not None else ()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _among(digest: bytes, known: Iterable[tuple[bytes, Caller]]) -> Caller | None:
    """Compare with all known digests, in a time that does not depend on which one matches."""
    found = [caller for each, caller in known if hmac.compare_digest(digest, each)]
    return found[0] if found else None


def _forbidden(*scopes: Scope) -> ProblemError:
    wanted = " or ".join(scopes)
    return ProblemError(
        HTTPStatus.FORBIDDEN,
        f"Your token may not do this: it needs the scope {wanted} (`ocrfleet token create`).",
        headers={
            "WWW-Authenticate": f'Bearer realm="ocrfleet", error="insufficient_scope", scope="{" ".join(scopes)}"'
        },
    )


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
