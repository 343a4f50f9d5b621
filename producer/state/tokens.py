"""Tokens of the API, in the store by their hashes: a name, a tenant, scopes and an expiry each."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError, OcrfleetError
from ocrfleet.records.base import Digest, Moment, Record, moment
from ocrfleet.records.tenants import Tenant

if TYPE_CHECKING:
    from ocrfleet.storage.store import ObjectStore

#: Shows what a leaked token is, to people and to scanners.
_PREFIX = "ocrfleet_"
_BYTES = 32

TokenName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class NameTakenError(OcrfleetError):
    """There is a token of this name already."""


class Scope(StrEnum):
    """What a token may do with its tenant's documents."""

    #: submit documents, follow submissions, retry and cancel
    SUBMIT = "submit"
    #: read documents, their pages and results
    READ = "read"
    #: read, and retry what was found wrong
    REVIEW = "review"
    DELETE = "delete"
    #: all of it; that of the default tenant also /metrics where that needs a token
    ADMIN = "admin"


class Token(Record):
    """A token without its secret."""

    schema_version: Literal[1] = 1
    name: TokenName
    tenant: Tenant
    scopes: tuple[Scope, ...] = Field(min_length=1)
    sha256: Digest
    created: Moment
    #: the moment from which on it is refused; None: never
    expires: Moment | None = None

    def is_valid(self, now: str) -> bool:
        """Return whether it is accepted at a moment."""
        return self.expires is None or now < self.expires


def digest_of_token(secret: str) -> str:
    """Return the hash under which a token is known. It needs no salt: a token is random."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class Tokens:
    """The tokens in a store. Each call may raise TransientError."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        #: by key: a stored token never changes
        self._read: dict[str, Token] = {}

    def create(
        self, name: str, *, tenant: str, scopes: tuple[Scope, ...], valid: timedelta | None
    ) -> tuple[str, Token]:
        """Store a new token; return its secret, which is kept nowhere, and its record. Raises NameTakenError."""
        secret = f"{_PREFIX}{secrets.token_urlsafe(_BYTES)}"
        digest = digest_of_token(secret)
        now = datetime.now(UTC)
        token = Token(
            name=name,
            tenant=tenant,
            scopes=scopes,
            sha256=digest,
            created=moment(),
            expires=None if valid is None else (now + valid).strftime("%Y%m%dT%H%M%S.%fZ"),
        )
        if any(self._store.list(keys.tokens_named(name))):
            raise NameTakenError(f"there is a token {name} already: revoke it, or choose another name")
        self._store.create(keys.token(name, digest), token.to_bytes())
        return secret, token

    def revoke(self, name: str) -> bool:
        """Remove a token; return whether there was one."""
        found = list(self._store.list(keys.tokens_named(name)))
        for key in found:
            self._store.delete(key)
        return bool(found)

    def all(self) -> list[Token]:
        """Return the tokens by name. Reads only those that are new since the last call."""
        found = list(self._store.list(keys.TOKENS))
        self._read = {key: token for key in found for token in self._token(key)}
        return list(self._read.values())

    def _token(self, key: str) -> Iterator[Token]:
        if key in self._read:
            yield self._read[key]
            return
        with suppress(
            NotFoundError, DamagedRecordError
        ):  # revoked meanwhile, or of a newer version: it is not accepted
            yield Token.from_bytes(self._store.get(key))
