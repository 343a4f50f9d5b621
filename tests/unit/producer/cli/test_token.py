"""`ocrfleet token`: what it prints, stores and refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from ocrfleet.storage.store import FolderStore
from producer.cli.token import token
from producer.errors import UsageError
from producer.state.tokens import Tokens


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    monkeypatch.setenv("OCRFLEET_STORE", str(tmp_path / "store"))
    return FolderStore(tmp_path / "store")


def run(*words: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("token")(token)
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})  # type: ignore[return-value]


def test_a_token_is_printed_once_and_stored_as_its_hash(store: FolderStore) -> None:
    ended = run("create", "scanner", "--tenant", "acme", "--scope", "submit", "--scope", "read", "--json")
    made = json.loads(ended.stdout)
    (stored,) = Tokens(store).all()
    assert (stored.name, stored.tenant, list(stored.scopes)) == ("scanner", "acme", ["submit", "read"])
    assert stored.sha256 == hashlib.sha256(made["token"].encode()).hexdigest()
    assert stored.expires is not None
    listed = run("list")
    assert "scanner" in listed.stdout
    assert made["token"] not in listed.stdout
    assert json.loads(run("list", "--json").stdout) == [
        {key: made[key] for key in ("name", "tenant", "scopes", "expires")}
    ]


def test_a_revoked_token_is_gone(store: FolderStore) -> None:
    run("create", "scanner", "--days", "0")
    assert Tokens(store).all()[0].expires is None
    assert run("revoke", "scanner").exit_code == 0
    assert Tokens(store).all() == []
    assert run("revoke", "scanner").exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("create",),
        ("create", "a/b"),
        ("create", "x", "--tenant", "ACME"),
        ("create", "x", "--tenant", "a~b"),
        ("list", "x"),
        ("revoke",),
        ("create", "taken"),
    ],
)
def test_what_can_not_be_done_is_said(store: FolderStore, words: tuple[str, ...]) -> None:
    run("create", "taken")
    assert isinstance(run(*words).exception, UsageError)
    assert [stored.name for stored in Tokens(store).all()] == ["taken"]


def test_a_tenants_webhook_secret_is_printed_with_its_token(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCRFLEET_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert "webhook_secret: whsec_" in run("create", "scanner", "--tenant", "acme").stdout
    assert "webhook_secret" not in run("create", "ours").stdout
    assert len(Tokens(store).all()) == 2
