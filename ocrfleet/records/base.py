"""What all records share: strict, frozen, versioned JSON, and the types of their fields."""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ocrfleet.errors import DamagedRecordError

SCHEMA_VERSION = 1


DocumentId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


PageNumber = Annotated[int, Field(ge=1)]


Generation = Annotated[int, Field(ge=1, le=99999)]


#: Name of a collection, chosen by people; part of keys.
Collection = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$")]

#: The same as it is stored: with the tenant before it, except the default one (ocrfleet/records/tenants.py).
StoredCollection = Annotated[str, Field(pattern=r"^(?:[a-z0-9][a-z0-9-]{0,31}~)?[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$")]


#: A time in UTC, as 20261122T051000.123456Z: sorts by time.
#: The form of a Moment, for strftime: moments sort as texts.
MOMENT = "%Y%m%dT%H%M%S.%fZ"
Moment = Annotated[str, Field(pattern=r"^\d{8}T\d{6}\.\d{6}Z$")]


class Record(BaseModel):
    """A frozen record that refuses unknown fields, so that records of a newer version are rejected, not misread."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """Return the record as one line of JSON; equal records give the same bytes."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse the bytes of `to_bytes`. Raises DamagedRecordError."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise DamagedRecordError(f"a stored {cls.__name__} can't be read: {problems_of(error)}") from error


def problems_of(error: ValidationError) -> str:
    """Return the errors of a record in words, without its content."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))


def digest_of(*parts: str) -> str:
    """Return the SHA-256 (hex) of the parts, each with its length, so that different lists of parts differ."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        sha.update(len(data).to_bytes(8, "big"))
        sha.update(data)
    return sha.hexdigest()


def moment() -> Moment:
    """Return the present time."""
    return datetime.now(UTC).strftime(MOMENT)


def registered_at(moment: str) -> float:
    """Return a `Moment` as Unix time; infinity for an invalid one."""
    with suppress(ValueError):
        return datetime.strptime(moment, MOMENT).replace(tzinfo=UTC).timestamp()
    return math.inf
