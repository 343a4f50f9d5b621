#!/opt/ocrfleet/bin/python
"""Say whether this container's process answers: the images' HEALTHCHECK, whatever role they run.

    healthcheck [URL]

Without a URL it asks for the numbers: at OCRFLEET_METRICS_PORT, or at the API's port where that is not set.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from http import HTTPStatus

#: Seconds; a container's HEALTHCHECK must allow more.
_TIMEOUT = 4.0


def main() -> None:
    port = os.environ.get("OCRFLEET_METRICS_PORT", "8080")
    url = sys.argv[1] if sys.argv[1:] else f"http://127.0.0.1:{port}/metrics"
    asking = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        asking.open(url, timeout=_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        # Who wants a token is alive.
        if error.code != HTTPStatus.UNAUTHORIZED:
            sys.exit(f"{url}: {error}")
    except OSError as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    main()
