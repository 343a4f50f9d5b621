"""`ocrfleet token`: the tokens that the HTTP API accepts."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from ocrfleet.records.base import moment
from ocrfleet.records.tenants import DEFAULT
from ocrfleet.storage.open import open_store
from producer.cli.options import read_settings
from producer.cli.terminal import console, echo
from producer.delivery.webhook import tenant_secret
from producer.errors import EXIT_INCOMPLETE, UsageError
from producer.state.tokens import NameTakenError, Scope, Token, Tokens

_SCOPES = (Scope.SUBMIT, Scope.READ, Scope.DELETE)


class Action(StrEnum):
    CREATE = "create"
    LIST = "list"
    REVOKE = "revoke"


def token(
    action: Annotated[Action, typer.Argument(help="[b]create[/], [b]list[/] or [b]revoke[/].")],
    name: Annotated[str | None, typer.Argument(help="Name of the token, to create or revoke it.")] = None,
    *,
    tenant: Annotated[
        str, typer.Option(help="Tenant whose documents the token is for: letters, digits and hyphens, in lower case.")
    ] = DEFAULT,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What the token may do; may be repeated. By default: submit, read and delete."),
    ] = None,
    days: Annotated[int, typer.Option(min=0, max=36_500, help="Days after which it expires; 0: never.")] = 90,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Create, list or revoke tokens of the HTTP API. They are in the store, by their hashes; servers read them every few seconds.

    Tenants don't learn of each other's documents. A new token is printed once. To replace one without a gap, create another, let the
    client take that, and revoke the first.

    [b]ocrfleet token create acme-scanner --tenant acme --scope submit --scope read[/]

    [b]ocrfleet token revoke acme-scanner[/]

    Exit code: 0 done; 1 there is no such token; 2 usage; 3 the store can't be reached.
    """
    settings = read_settings()
    tokens = Tokens(open_store(settings))
    if (action is Action.LIST) is (name is not None):
        raise UsageError("token create NAME, token revoke NAME, or token list")
    if action is Action.LIST:
        _show(tokens.all(), as_json=as_json)
    elif action is Action.REVOKE:
        if not tokens.revoke(_named(name)):
            console(stderr=True).print(f"There is no token {name}.")
            raise typer.Exit(EXIT_INCOMPLETE)
        echo(f"{name} is revoked")
    else:
        try:
            secret, made = tokens.create(
                _named(name),
                tenant=tenant,
                scopes=tuple(dict.fromkeys(scope or _SCOPES)),
                valid=timedelta(days=days) if days else None,
            )
        except ValidationError:
            raise UsageError(f"--tenant {tenant!r}: 32 letters, digits and hyphens at most, in lower case") from None
        except NameTakenError as error:
            raise UsageError(str(error)) from error
        shown = _facts(made) | {"token": secret}
        if settings.webhook_secret is not None and tenant != DEFAULT:
            shown["webhook_secret"] = tenant_secret(settings.webhook_secret, tenant)
        if as_json:
            echo(json.dumps(shown))
        else:
            echo("\n".join(f"{label}: {value}" for label, value in shown.items()))


def _named(name: str | None) -> str:
    if name is None or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise UsageError(f"{name!r} is no token's name: letters, digits, hyphens and underscores, 64 at most")
    return name


def _facts(token: Token) -> dict[str, str]:
    expires = "never" if token.expires is None else token.expires
    return {"name": token.name, "tenant": token.tenant, "scopes": " ".join(token.scopes), "expires": expires}


def _show(found: list[Token], *, as_json: bool) -> None:
    if as_json:
        echo(json.dumps([_facts(token) for token in found]))
        return
    table = Table("name", "tenant", "scopes", "expires", box=None, padding=(0, 2))
    now = moment()
    for token in found:
        facts = _facts(token)
        expired = "" if token.is_valid(now) else " (expired)"
        table.add_row(facts["name"], facts["tenant"], facts["scopes"], facts["expires"] + expired)
    console().print(table)
