"""Bearer tokens of an OpenID Connect issuer: JSON Web Tokens, checked by the keys that the issuer publishes (RFC 7519, RFC 7517).

The issuer is the only host that is asked: its configuration (OpenID Connect Discovery 1.0) must name keys at the same origin.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact

from ocrfleet.errors import ConfigurationError, TransientError
from producer.state.tokens import Scope

if TYPE_CHECKING:
    from ocrfleet.settings import ApiSettings

log = structlog.get_logger(__name__)

#: Signatures by keys that only the issuer has: none with a shared secret, and not "none".
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
#: Seconds for which keys are used; seconds between two requests for them at least, whatever tokens name; of one request.
_KEPT, _APART, _TIMEOUT = 3600.0, 30.0, 5.0
#: Seconds by which clocks may differ.
_LEEWAY = 30
#: Bytes of a token, and of what the issuer answers, at most.
_LONGEST_TOKEN, _LARGEST_ANSWER = 8192, 1 << 20
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token was issued to."""

    subject: str
    #: None: the token has no valid claim
    tenant: str | None
    scopes: frozenset[Scope]


class Oidc:
    """Checks tokens of one issuer. Thread-safe. Raises ConfigurationError for settings that don't fit together."""

    def __init__(self, settings: ApiSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = settings.oidc_issuer or ""
        parts = urlsplit(self._issuer)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
            raise ConfigurationError("OCRFLEET_API_OIDC_ISSUER must be an https:// URL")
        if settings.oidc_audience is None:
            raise ConfigurationError(
                "OCRFLEET_API_OIDC_ISSUER needs OCRFLEET_API_OIDC_AUDIENCE: else tokens for other services would be accepted"
            )
        self._tenant_claim, self._scope_claim = settings.oidc_tenant_claim, settings.oidc_scope_claim
        self._claims = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": settings.oidc_audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        self._clock = clock
        self._keys: KeySet | None = None
        self._asked = -math.inf
        self._lock = threading.Lock()

    def identity(self, token: str) -> Identity | None:
        """Return who a token was issued to; None for one that is no valid token of the issuer. Blocks.

        Raises TransientError while the issuer has never answered.
        """
        kid = _key_id(token)
        if kid is None:
            return None
        keys = self._current(kid)
        try:
            if kid not in {key.kid for key in keys.keys}:
                return None
            claims = jwt.decode(token, keys, algorithms=_ALGORITHMS).claims
            self._claims.validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            log.info("oidc.token_refused", reason=type(error).__name__)
            return None
        tenant, scopes = claims.get(self._tenant_claim), claims.get(self._scope_claim, "")
        named = scopes.split() if isinstance(scopes, str) else scopes
        return Identity(
            subject=str(claims["sub"]),
            tenant=tenant if isinstance(tenant, str) and _TENANT.fullmatch(tenant) else None,
            scopes=frozenset(scope for scope in Scope if isinstance(named, list) and scope.value in named),
        )

    def _current(self, kid: str) -> KeySet:
        """Return the issuer's keys; asks again when they are old or lack this one, but not often."""
        with self._lock:
            age = self._clock() - self._asked
            known = self._keys is not None and kid in {key.kid for key in self._keys.keys}
            if age > (_KEPT if known else _APART if self._keys is not None else _TIMEOUT):
                self._asked = self._clock()
                try:
                    self._keys = self._read()
                except (httpx.HTTPError, JoseError, ValueError, TypeError, KeyError) as error:
                    log.error("oidc.issuer_not_read", issuer=self._issuer, error=f"{type(error).__name__}: {error}")  # noqa: TRY400
            if self._keys is None:
                raise TransientError("the issuer of tokens can't be reached")
            return self._keys

    def _read(self) -> KeySet:
        """Read the issuer's keys. Raises httpx.HTTPError, JoseError, ValueError, TypeError or KeyError."""
        with httpx.Client(trust_env=False, follow_redirects=False, timeout=_TIMEOUT) as client:
            found = _answer(client, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            if found["issuer"] != self._issuer:
                raise ValueError("the configuration is that of another issuer")
            place, issuer = urlsplit(found["jwks_uri"]), urlsplit(self._issuer)
            if (place.scheme, place.netloc) != (issuer.scheme, issuer.netloc):
                raise ValueError("its keys are on another host, which is not asked")
            return KeySet.import_key_set(_answer(client, found["jwks_uri"]))  # type: ignore[arg-type] # checked there


def _answer(client: httpx.Client, url: str) -> dict[str, Any]:
    """Return the JSON object at a URL."""
    body = b""
    with client.stream("GET", url) as response:
        response.raise_for_status()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > _LARGEST_ANSWER:
                raise ValueError("the answer is too long")
    found = json.loads(body)
    if not response.is_success or not isinstance(found, dict):
        raise ValueError("the answer is no JSON object")
    return found


def _key_id(token: str) -> str | None:
    """Return the key that a token names; None for one that is no signed JSON Web Token, or names none."""
    if len(token) > _LONGEST_TOKEN or token.count(".") != 2:  # noqa: PLR2004 - header, claims, signature
        return None
    try:
        kid = extract_compact(token.encode()).headers().get("kid")
    except (JoseError, ValueError):
        return None
    return kid if isinstance(kid, str) else None
