"""The URL of Redis, which may hold a password: checked so strictly that redis-py and kombu read it in the same way."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

#: Options of TLS, given in the query of a rediss:// URL.
TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})

_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}|[0-9A-Fa-f:.]{2,45}(?:%\w{1,32})?")
_DATABASE = re.compile(r"/?|/[0-9]{1,5}")
_FORM = (
    "must be redis://:password@host:6379/0, rediss://… or unix:///path; write the characters / ? # [ ] @ % of a password as %2F %3F "
    "%23 %5B %5D %40 %25"
)


def checked(url: str) -> str:
    """Return the URL if it is one of a Redis. Raises ValueError, whose message has no part of the URL."""
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
