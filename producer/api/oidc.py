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
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact

from ocrfleet.errors import ConfigurationError, TransientError
from ocrfleet.records.tenants import DEFAULT
from producer.state.tokens import Scope

if TYPE_CHECKING:
    from ocrfleet.settings import ApiSettings

log = structlog.get_logger(__name__)

#: Signatures by keys that only the issuer has: none with a shared secret, and not "none".
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
#: Seconds after which keys are read again; after which they are not used any more, if that fails.
_KEPT, _OLDEST = 3600.0, 24 * 3600.0
#: Seconds between two attempts to read them at least, whatever tokens name; that one attempt may take.
_APART, _TIMEOUT = 30.0, 5.0
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
    #: None: the token has no valid claim, or claims the default tenant, whose tokens the issuer doesn't give
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
        self._read_at = self._asked = -math.inf
        self._reading: threading.Thread | None = None
        self._lock = threading.Lock()

    def identity(self, token: str) -> Identity | None:
        """Return who a token was issued to; None for one that is no valid token of the issuer. Blocks.

        Raises TransientError while there are no keys of the issuer, or the token's may be a new one that is just being read.
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
        except Exception as error:  # noqa: BLE001 - whatever a client sends is no error of ours
            log.info("oidc.token_refused", reason=type(error).__name__)
            return None
        tenant, scopes = claims.get(self._tenant_claim), claims.get(self._scope_claim, "")
        named = scopes.split() if isinstance(scopes, str) else scopes
        return Identity(
            subject=str(claims["sub"]),
            tenant=tenant if isinstance(tenant, str) and _TENANT.fullmatch(tenant) and tenant != DEFAULT else None,
            scopes=frozenset(scope for scope in Scope if isinstance(named, list) and scope.value in named),
        )

    def _current(self, kid: str) -> KeySet:
        """Return the issuer's keys. Has them read again when they are old or lack this one, but not often.

        Only the request that has a missing key read waits for it. Raises TransientError.
        """
        begun = None
        with self._lock:
            now = self._clock()
            keys = self._usable(now)
            known = keys is not None and kid in {key.kid for key in keys.keys}
            if (not known or now - self._read_at > _KEPT) and now - self._asked > (_APART if keys else _TIMEOUT):
                self._asked = now
                self._reading = begun = threading.Thread(target=self._refresh, name="oidc", daemon=True)
                begun.start()
            reading = self._reading
        if keys is not None and known:
            return keys
        if begun is not None:
            begun.join(_TIMEOUT)
        if reading is not None and reading.is_alive():
            raise TransientError("the keys of the issuer of tokens are being read")
        with self._lock:
            keys = self._usable(self._clock())
        if keys is None:
            raise TransientError("the issuer of tokens can't be reached")
        return keys

    def _usable(self, now: float) -> KeySet | None:
        return self._keys if now - self._read_at < _OLDEST else None

    def _refresh(self) -> None:
        try:
            keys = self._read()
        except Exception as error:  # noqa: BLE001 - whatever the issuer sends; it is asked again soon
            log.error("oidc.issuer_not_read", issuer=self._issuer, error=f"{type(error).__name__}: {error}")  # noqa: TRY400
            return
        with self._lock:
            self._keys, self._read_at = keys, self._clock()

    def _read(self) -> KeySet:
        """Read the issuer's keys. Raises httpx.HTTPError, ValueError and whatever malformed answers make of them."""
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
    body, until = b"", time.monotonic() + _TIMEOUT
    with client.stream("GET", url) as response:
        response.raise_for_status()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > _LARGEST_ANSWER:
                raise ValueError("the answer is too long")
            if time.monotonic() > until:
                raise ValueError("the answer takes too long")
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
    except Exception:  # noqa: BLE001 - a header may be any JSON, nested however deeply
        return None
    return kid if isinstance(kid, str) else None
