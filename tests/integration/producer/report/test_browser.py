"""The report in a real browser, over a store with real sources."""

from __future__ import annotations

import hashlib
from pathlib import Path

from typer.testing import CliRunner

from ocrfleet import keys
from ocrfleet.errors import Reason
from ocrfleet.records.documents import Kind, Manifest, Source
from ocrfleet.records.pages import PageResult
from ocrfleet.sources.sources import uri_of
from producer.cli.main import app
from producer.intake.discover import Skipped
from producer.local.skipped import keep_skipped
from producer.samples.files import write_samples
from tests.support.browser import browser, watched
from tests.support.shelf import Shelf, page_result

HOSTILE = "<img src=x onerror=document.title='taken'>.pdf"


def shelved(folder: Path) -> Path:
    """Make the output folder of a run: one document of 60 pages, a hostile one, a real one whose pages are images."""
    out = folder / "out"
    shelf = Shelf(out / ".ocrfleet")
    book = shelf.manifest(pages=60)
    shelf.want(book, "book.pdf")
    for number in book.pages():
        result = page_result(number).model_copy(update={"confidence": number / 100, "text": f"text of page {number}"})
        shelf.store.put(keys.page_done(book.document, number), result.to_bytes())
    shelf.ended(HOSTILE, failed={1: Reason.TRUNCATED})
    write_samples(folder / "in")
    letter = folder / "in" / "letter.pdf"
    facts = letter.stat()
    source = Source(
        uri=uri_of(letter),
        size=facts.st_size,
        mtime_ns=facts.st_mtime_ns,
        sha256=hashlib.sha256(letter.read_bytes()).hexdigest(),
        kind=Kind.PDF,
        pages=2,
    )
    real = Manifest.model_validate(
        shelf.manifest(pages=2).model_dump() | {"sources": (source,), "selection": ((1, 2),)}
    )
    shelf.store.put(keys.manifest(real.document), real.to_bytes())
    shelf.want(real, "letter.pdf")
    for number, confidence in ((1, 0.001), (2, 0.99)):
        text = f"{HOSTILE} in the text of page {number}"
        result = PageResult.model_validate(page_result(number).model_dump() | {"confidence": confidence, "text": text})
        shelf.store.put(keys.page_done(real.document, number), result.to_bytes())
    (out / "letter.pdf.html").write_text('<!DOCTYPE html><section id="page-2">the second page</section>')
    keep_skipped(out / ".ocrfleet", [Skipped(HOSTILE, "neither a PDF nor an image")])
    return out


def test_the_report_opens_sorts_filters_and_links_to_its_pages(tmp_path: Path) -> None:
    out = shelved(tmp_path)
    made = CliRunner().invoke(app, ["report", str(out), "--worst", "3"], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    assert "65 pages: 64 done, 1 failed" in made.stdout

    with browser() as started:
        page, seen = watched(started)
        page.goto((out / "report.html").as_uri())

        # It opens: the first fifty pages of the table, the worst pages with an image beside their text
        rows = page.locator("#pages tbody tr")
        assert rows.count() == 50
        worst = page.locator("#worst article")
        assert worst.count() == 3
        image = worst.nth(1).locator("img")
        assert image.evaluate("image => image.decode().then(() => image.naturalHeight)") == 720
        assert worst.nth(1).locator("pre").inner_text() == f"{HOSTILE} in the text of page 1"

        # What was left out, and why
        assert page.locator("#excluded tbody").inner_text() == f"{HOSTILE}\t\tskipped: neither a PDF nor an image"

        # It turns its pages
        page.locator("#pager").get_by_role("button", name="Next").click()
        assert rows.count() == 15

        # It sorts, upwards and downwards
        by_confidence = page.get_by_role("button", name="confidence").first
        by_confidence.click()
        by_confidence.click()
        assert "99.0 %" in rows.first.inner_text()

        # It filters: by a choice, and by a click on a count
        page.get_by_label("Document").fill("letter")
        assert page.locator("#found").inner_text() == "2 of 65 pages"
        page.get_by_role("button", name="truncated").click()
        assert page.locator("#found").inner_text() == "1 of 65 pages"
        assert HOSTILE in rows.first.inner_text()
        page.get_by_role("button", name="Clear").click()
        assert page.locator("#found").inner_text() == "65 of 65 pages"

        # A page has an address, and links to its text and its original there
        page.get_by_label("Document").fill("letter")
        rows.filter(has_text="99.0 %").get_by_role("link", name="2").click()
        dialog = page.get_by_role("dialog")
        assert "letter.pdf, page 2" in dialog.inner_text()
        original = dialog.get_by_role("link", name="original").get_attribute("href")
        assert original == uri_of(tmp_path / "in" / "letter.pdf") + "#page=2"
        with page.expect_popup() as opened:
            dialog.get_by_role("link", name="text").click()
        assert opened.value.url.endswith("/letter.pdf.html#page-2")
        assert "the second page" in opened.value.content()

        # No content of documents was executed, and there were no requests to other hosts
        assert page.title() == "Report on quality: out"
        assert seen.errors == []
        assert {url for url in seen.requests if not url.startswith("data:")} == {(out / "report.html").as_uri()}
