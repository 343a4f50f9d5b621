"""The URL of Redis, which may hold a password: checked so strictly that redis-py and kombu read it in the same way."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

#: Options of TLS, given in the query of a rediss:// URL.
TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})

_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}|[0-9A-Fa-f:.]{2,45}(?:%\w{1,32})?")
_DATABASE = re.compile(r"/?|/[0-9]{1,5}")
_FORM = (
    "must be redis://:password@host:6379/0, rediss://…, unix:///path or sentinel://:password@host:26379,host:26379/0?master=name; write the characters / ? # [ ] @ % of a password as %2F %3F "
    "%23 %5B %5D %40 %25"
)
#: The highest port of TCP.
_PORTS = 65535
_SENTINELS = re.compile(
    r"sentinel://(?:(?P<user>[^:@/?#,;]*):(?P<password>[^:@/?#,;]+)@)?"
    r"(?P<hosts>[A-Za-z0-9._-]{1,255}:[0-9]{1,5}(?:,[A-Za-z0-9._-]{1,255}:[0-9]{1,5}){0,15})"
    r"/(?P<database>[0-9]{1,5})\?master=(?P<master>[A-Za-z0-9._-]{1,255})(?:&sentinel_password=(?P<own>[^&:@/?#,;]+))?"
)


@dataclass(frozen=True)
class Sentinels:
    """Sentinels (their addresses) that know which Redis is the master of this name; the credentials of both."""

    addresses: tuple[tuple[str, int], ...]
    master: str
    database: int
    username: str | None
    password: str | None = field(repr=False)
    sentinel_password: str | None = field(repr=False)


def sentinels(url: str) -> Sentinels | None:
    """Return what a sentinel:// URL says, of a URL that is `checked`; None for another."""
    found = _SENTINELS.fullmatch(url)
    if found is None:
        return None
    addresses = (address.rpartition(":") for address in found["hosts"].split(","))
    return Sentinels(
        addresses=tuple((host, int(port)) for host, _, port in addresses),
        master=found["master"],
        database=int(found["database"]),
        username=unquote(found["user"] or "") or None,
        password=unquote(found["password"] or "") or None,
        sentinel_password=unquote(found["own"] or "") or None,
    )


def sentinel_options(named: Sentinels) -> dict[str, object]:
    """Return redis-py's and kombu's options of a connection to a sentinel."""
    return {"password": named.sentinel_password, "socket_connect_timeout": 5, "socket_timeout": 5}


def checked(url: str) -> str:
    """Return the URL if it is one of a Redis. Raises ValueError, whose message has no part of the URL."""
    if url.startswith("sentinel://"):
        named = sentinels(url)
        if named is None or not url.isprintable() or " " in url or any(port > _PORTS for _, port in named.addresses):
            raise ValueError(_FORM)
        return url
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(_FORM) from None
    right = not parts.fragment and "#" not in url and url.isprintable() and " " not in url
    # An @ elsewhere is a sign of a password that is not encoded: its first part was taken for the host.
    right = right and "@" not in parts.path + parts.query and parts.netloc.count("@") <= 1
    if parts.scheme == "unix":
        right = right and parts.path.startswith("/") and not parts.query and not parts.hostname
    elif parts.scheme in {"redis", "rediss"}:
        right = (
            right and _HOST.fullmatch(parts.hostname or "") is not None and _DATABASE.fullmatch(parts.path) is not None
        )
        options = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        if right and parts.query and not (parts.scheme == "rediss" and options <= TLS_OPTIONS):
            raise ValueError(f"may only have the options {', '.join(sorted(TLS_OPTIONS))}, of rediss://")
    else:
        right = False
    if not right:
        raise ValueError(_FORM)
    return url
