"""A receiver of webhooks: verifies the signature (Standard Webhooks) and handles each delivery once.

WEBHOOK_SECRET=whsec_... python examples/webhook_receiver.py 8000
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Seconds that a timestamp may differ from our clock: an old request must not be replayed.
TOLERANCE = 300
LONGEST_BODY = 1_000_000


def verified(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether a request was signed with the secret, not long ago. Names of headers are in small letters."""
    delivery, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isascii() or not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
    digest = hmac.digest(key, b".".join((delivery.encode(), timestamp.encode(), body)), hashlib.sha256)
    expected = f"v1,{base64.b64encode(digest).decode()}"
    given = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in given)


class Handler(BaseHTTPRequestHandler):
    """Answers 204 to what is verified, 401 to anything else."""

    #: ids of deliveries that were handled: a real receiver keeps them in its database
    seen: set[str] = set()  # noqa: RUF012 - shared on purpose

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size) if size <= LONGEST_BODY else b""
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not verified(os.environ["WEBHOOK_SECRET"], headers, body):
            self.send_error(HTTPStatus.UNAUTHORIZED)
            return
        delivery = headers["webhook-id"]
        if delivery not in self.seen:
            self.seen.add(delivery)
            sys.stdout.write(json.dumps(json.loads(body)) + "\n")
            sys.stdout.flush()
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()


def main() -> None:
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
