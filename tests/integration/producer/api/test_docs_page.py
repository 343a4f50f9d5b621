"""`/docs` in a browser: it loads nothing from other hosts, keeps its own policy, and sends requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import expect
from pydantic import SecretStr

from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.settings import ApiSettings
from producer.api.app import create_app
from producer.intake.batches import IntakeBatches
from tests.support.browser import browser, watched
from tests.support.servers import free_ports
from tests.support.shelf import AWAY, Shelf
from tests.support.waiting import until

TOKEN = "t" * 32


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Shelf]]:
    """Serve the API; yield its address and the documents behind it."""
    shelf = Shelf(tmp_path, AWAY)
    app = create_app(
        shelf.settings.model_copy(update={"api": ApiSettings(tokens=SecretStr(TOKEN))}),
        shelf.store,
        shelf.ledger,
        shelf.registry,
        IntakeBatches(shelf.store),
        profile=RAPIDOCR,
    )
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{port}", shelf
    server.should_exit = True
    thread.join()
    shelf.registry.close()


def test_the_page_works_and_asks_no_other_host(served: tuple[str, Shelf]) -> None:
    address, shelf = served
    document = shelf.ended("<img src=x onerror=alert(1)>.pdf")
    with browser() as chromium:
        page, seen = watched(chromium)
        page.goto(f"{address}/docs")

        # Each operation is there
        expect(page.locator("summary", has_text="/v1/documents/{document}").first).to_be_visible()

        # When a request is sent with a token
        page.get_by_label("Token").fill(TOKEN)
        operation = page.locator("main > section > details").filter(
            has=page.get_by_text("/v1/documents/{document}", exact=True), has_text="get"
        )
        operation.locator("summary").first.click()
        operation.get_by_label("document").fill(document)
        operation.get_by_role("button", name="Send").click()

        # Then its answer is shown, as text
        expect(operation.locator("form pre")).to_contain_text("200 OK")
        expect(operation.locator("form pre")).to_contain_text("<img src=x")
        for other in page.locator("main > section > details").all():  # every operation can be opened
            other.locator("summary").first.click()
        assert seen.errors == []
        assert all(url.startswith(address) for url in seen.requests)


def test_no_script_of_another_origin_runs_and_no_page_shows_it_in_a_frame(served: tuple[str, Shelf]) -> None:
    address, _ = served
    with browser() as chromium:
        page, seen = watched(chromium)
        page.goto(f"{address}/docs")
        with page.expect_console_message(lambda message: "127.0.0.2" in message.text):
            page.evaluate(
                "document.body.append(Object.assign(document.createElement('script'), {src: 'http://127.0.0.2/a.js'}))"
            )
        with page.expect_console_message(lambda message: "inline event handler" in message.text):
            page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
        assert page.title() == "ocrfleet: HTTP API"
        assert len(seen.errors) >= 2

        framing, _ = watched(chromium)
        framing.set_content(f'<iframe src="{address}/docs"></iframe>')
        assert all("ocrfleet" not in frame.title() for frame in framing.frames[1:])
