"""Tenants: clients that don't learn of each other's documents. A tenant's name is part of the stored names of its collections.

A collection `letters` of the tenant `acme` is stored as `acme~letters`, so whatever is kept by collection (listings, pauses, turns at
the workers) is kept apart. Collections of the default tenant have no prefix: as before there were tenants.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

#: The tenant of plain tokens, of the commands, and of all documents of versions without tenants.
DEFAULT = "default"

_SIGN = "~"

Tenant = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


def stored_collection(tenant: str, collection: str) -> str:
    """Return the name under which a tenant's collection is stored."""
    return collection if tenant == DEFAULT else f"{tenant}{_SIGN}{collection}"


def tenant_of(stored: str) -> str:
    """Return the tenant of a collection by its stored name."""
    tenant, sign, _ = stored.partition(_SIGN)
    return tenant if sign else DEFAULT


def plain_collection(stored: str) -> str:
    """Return the name of a collection as its tenant knows it."""
    return stored.rpartition(_SIGN)[2]
