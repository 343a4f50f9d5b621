"""A real browser for tests: Debian's Chromium, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.servers import lacking


@dataclass
class Seen:
    """Errors and requests of a page, none of which are allowed."""

    #: errors, and what the script or the policy wrote to the console
    errors: list[str] = field(default_factory=list)
    #: requested URLs
    requests: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    program = shutil.which("chromium")
    if program is None:
        lacking("chromium")
    with sync_playwright() as playwright:
        # The tests run as root in CI, where Chromium's own sandbox does not start.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


def watched(started: Browser) -> tuple[Page, Seen]:
    """Open an empty page; record its errors and requests."""
    page, seen = started.new_page(), Seen()
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda message: seen.errors.append(message.text))
    page.on("request", lambda request: seen.requests.append(request.url))
    return page, seen
