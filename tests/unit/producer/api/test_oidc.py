"""Tokens of an OpenID Connect issuer, on this machine."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from ocrfleet.errors import ConfigurationError, TransientError
from ocrfleet.settings import ApiSettings
from producer.api import oidc
from producer.api.oidc import Oidc
from producer.state.tokens import Scope
from tests.support.waiting import scaled, until
from tests.unit.producer.api.test_api import Front, pdf, problem

AUDIENCE = "https://ocr.example"


class Issuer:
    """Publishes its keys, and issues tokens."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", parameters={"kid": "first"})
        self.published: list[Any] = [self.key]
        self.asked: list[str] = []
        self.changes: dict[str, Any] = {}
        self.away = False
        #: set: it answers at once; else slowly, as long as it is not set
        self.quick = threading.Event()
        self.quick.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                body = json.dumps(issuer.answer(self.path)).encode()
                self.send_response(503 if issuer.away else 200)
                self.end_headers()
                with suppress(OSError):  # who asks may have given up
                    while not issuer.quick.wait(scaled(0.01)):
                        self.wfile.write(b" ")
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/realm"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def answer(self, path: str) -> Any:
        if path == "/realm/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"} | self.changes
        return KeySet(self.published).as_dict(private=False)

    def token(self, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        known = {"iss": self.url, "aud": AUDIENCE, "sub": "user-1", "exp": int(time.time()) + 300, "tenant": "acme"}
        wanted = {
            name: value for name, value in (known | {"scope": "submit read"} | claims).items() if value is not None
        }
        key = key or self.key
        return jwt.encode(
            header or {"alg": "ES256", "kid": key.kid}, wanted, key, algorithms=["ES256", "RS256", "HS256"]
        )

    def settings(self, **more: Any) -> ApiSettings:
        return ApiSettings(oidc_issuer=self.url, oidc_audience=AUDIENCE, **more)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.quick.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def forged(header: str) -> str:
    """Return a token with this header, and no valid claims or signature."""
    return f"{base64.urlsafe_b64encode(header.encode()).decode().rstrip('=')}.e30.e30"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as made:
        yield made


def test_a_token_of_the_issuer_is_a_client_of_its_tenant(issuer: Issuer, tmp_path: Path) -> None:
    front = Front(tmp_path, oidc_issuer=issuer.url, oidc_audience=AUDIENCE)

    def get(path: str, token: str) -> Any:
        return front.client.get(path, headers={"Authorization": f"Bearer {token}"})

    headers = {"Authorization": f"Bearer {issuer.token()}", "Content-Type": "application/pdf"}
    place = front.client.post("/v1/documents", content=pdf(), headers=headers).headers["location"]
    assert get(place, issuer.token(sub="user-2")).status_code == 200
    problem(get(place, issuer.token(tenant="brick")), 404)
    problem(get(place, issuer.token(scope="submit")), 403)
    problem(get(place, issuer.token(scope=None)), 403)
    assert "names no tenant" in problem(get(place, issuer.token(tenant=None)), 403)["detail"]
    problem(get(place, issuer.token(tenant="../x")), 403)
    problem(get(place, issuer.token(tenant="default", scope="admin")), 403)
    problem(get(place, "x.y.z"), 401)
    problem(front.client.get(place), 401)
    front.close()


@pytest.mark.parametrize(
    "forge",
    [
        lambda issuer: issuer.token(iss="https://other.example"),
        lambda issuer: issuer.token(aud="https://other.example"),
        lambda issuer: issuer.token(aud=None),
        lambda issuer: issuer.token(exp=int(time.time()) - 60),
        lambda issuer: issuer.token(exp=None),
        lambda issuer: issuer.token(nbf=int(time.time()) + 600),
        lambda issuer: issuer.token(sub=None),
        lambda issuer: issuer.token(key=ECKey.generate_key("P-256", parameters={"kid": "first"})),
        lambda issuer: issuer.token(key=ECKey.generate_key("P-256", parameters={"kid": "unknown"})),
        lambda issuer: issuer.token(header={"alg": "ES256"}),
        # Signed with a shared secret
        lambda issuer: issuer.token(key=OctKey.generate_key(256), header={"alg": "HS256", "kid": "first"}),
        lambda issuer: issuer.token().rpartition(".")[0] + ".",
        lambda issuer: issuer.token() + "A" * 10_000,
        lambda _: "eyJhbGciOiJub25lIiwia2lkIjoiZmlyc3QifQ.e30.",
        lambda _: "..",
        # Headers of other JSON, and one that is nested too deeply
        lambda _: forged('["alg"]'),
        lambda _: forged('"alg"'),
        lambda _: forged("null"),
        lambda _: forged('{"alg": "ES256", "kid": {}}'),
        lambda _: forged('{"kid": "first", "alg": "ES256", "crit": 1}'),
        lambda _: forged("[" * 5000),
        lambda _: "\udcff.a.b",
    ],
)
def test_other_tokens_are_refused(issuer: Issuer, forge: Callable[[Issuer], str]) -> None:
    assert Oidc(issuer.settings()).identity(forge(issuer)) is None


def test_claims_are_read_as_the_settings_say(issuer: Issuer) -> None:
    made = Oidc(issuer.settings(oidc_tenant_claim="org", oidc_scope_claim="roles"))
    identity = made.identity(issuer.token(org="brick", roles=["read", "nothing of ours"]))
    assert identity is not None
    assert (identity.tenant, identity.scopes, identity.subject) == ("brick", frozenset({Scope.READ}), "user-1")


def test_new_keys_are_found_and_unknown_ones_do_not_make_it_ask_all_the_time(issuer: Issuer) -> None:
    now = [0.0]
    made = Oidc(issuer.settings(), clock=lambda: now[0])
    assert made.identity(issuer.token()) is not None
    # Given tokens of unknown keys, then the issuer is not asked again at once
    for number in range(5):
        unknown = RSAKey.generate_key(2048, parameters={"kid": str(number)}) if not number else issuer.key
        made.identity(
            issuer.token(key=unknown, header={"alg": "RS256" if not number else "ES256", "kid": f"u{number}"})
        )
    assert len(issuer.asked) == 2
    # When the issuer changes its keys
    issuer.key = ECKey.generate_key("P-256", parameters={"kid": "second"})
    issuer.published.append(issuer.key)
    now[0] += oidc._APART + 1
    # Then they are found
    assert made.identity(issuer.token()) is not None
    assert len(issuer.asked) == 4


def asked_since(issuer: Issuer, count: int) -> bool:
    return len(issuer.asked) > count


def test_keys_are_used_for_a_day_while_the_issuer_is_away(issuer: Issuer) -> None:
    now = [0.0]
    made = Oidc(issuer.settings(), clock=lambda: now[0])
    token = issuer.token()
    assert made.identity(token) is not None
    # When the issuer is away after an hour, then the keys are used, and it is asked again soon
    issuer.away = True
    for seconds in (oidc._KEPT + 1, oidc._APART + 1):
        asked = len(issuer.asked)
        now[0] += seconds
        assert made.identity(token) is not None
        until(partial(asked_since, issuer, asked), seconds=10)
        assert made.identity(token) is not None
    assert len(issuer.asked) == 4
    # But not for ever
    now[0] += oidc._OLDEST
    with pytest.raises(TransientError):
        made.identity(token)
    issuer.away = False
    now[0] += oidc._APART + 1
    assert made.identity(token) is not None


def test_a_slow_issuer_holds_up_nobody_whose_key_is_known(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    made = Oidc(issuer.settings(), clock=lambda: now[0])
    token = issuer.token()
    assert made.identity(token) is not None
    # Given an issuer that sends a byte now and then
    issuer.quick.clear()
    monkeypatch.setattr(oidc, "_TIMEOUT", 0.1)
    now[0] += oidc._KEPT + 1
    # Then known keys are used, and a token of another one is refused for the moment
    assert made.identity(token) is not None
    stranger = ECKey.generate_key("P-256", parameters={"kid": "new"})
    now[0] += oidc._APART + 1
    with pytest.raises(TransientError):
        made.identity(issuer.token(key=stranger))
    # When it answers, the new key is found
    issuer.published.append(stranger)
    issuer.quick.set()
    monkeypatch.undo()
    now[0] += oidc._APART + 1
    assert made.identity(issuer.token(key=stranger)) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://other.example"},
        {"jwks_uri": "http://127.0.0.1:1/keys"},
        {"jwks_uri": "https://127.0.0.1/keys"},
    ],
)
def test_keys_of_another_host_are_not_read(issuer: Issuer, changes: dict[str, str]) -> None:
    issuer.changes = changes
    with pytest.raises(TransientError):
        Oidc(issuer.settings()).identity(issuer.token())
    assert issuer.asked == ["/realm/.well-known/openid-configuration"]


def test_without_its_issuer_no_token_is_accepted(issuer: Issuer, tmp_path: Path) -> None:
    front = Front(tmp_path, oidc_issuer="http://127.0.0.1:1", oidc_audience=AUDIENCE)
    answer = front.client.get("/v1/documents?collection=c", headers={"Authorization": f"Bearer {issuer.token()}"})
    problem(answer, 503)
    front.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"oidc_issuer": "http://issuer.example", "oidc_audience": "x"}, "https"),
        ({"oidc_issuer": "https://issuer.example"}, "OCRFLEET_API_OIDC_AUDIENCE"),
    ],
)
def test_settings_that_are_unsafe_are_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Oidc(ApiSettings.model_validate(settings))
