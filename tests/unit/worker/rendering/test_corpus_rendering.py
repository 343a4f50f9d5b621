"""Every file of the corpus is probed and rendered as its manifest expects."""

from __future__ import annotations

import asyncio
import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ocrfleet.errors import PermanentError, Reason
from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Kind
from ocrfleet.sandbox.sandbox import Sandbox
from ocrfleet.sandbox.sniff import SNIFF_BYTES, sniff
from tests.support.servers import ROOT
from tests.support.waiting import scaled
from worker.rendering.pool import RenderPool

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS = Path(os.environ.get("OCRFLEET_CORPUS", ROOT.parent / "shared" / "corpus"))
MANIFEST = CORPUS / "manifest.csv"
ROWS = list(csv.DictReader(MANIFEST.read_text(encoding="utf-8").splitlines())) if MANIFEST.exists() else []
RENDER = Render(long_side=1684, max_pixels=2_000_000)

#: The manifest has the result of MuPDF; these are our reasons.
PROBLEMS = {
    "corrupt-unrecoverable.pdf": Reason.NO_PAGES,
    "zero-pages.pdf": Reason.NO_PAGES,
    "header-only.pdf": Reason.UNREADABLE,
    "zero-bytes.pdf": Reason.EMPTY_FILE,
}


def test_there_is_a_corpus() -> None:
    if not ROWS and os.environ.get("CI") != "true":
        pytest.skip("no corpus: set OCRFLEET_CORPUS to its folder")
    assert ROWS


@pytest.fixture(scope="module")
def probe() -> Iterator[Sandbox]:
    sandbox = Sandbox("producer.intake.probe", memory=128 << 20)
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def pool() -> Iterator[RenderPool]:
    # Bounded memory for all, the poster of 18,000 x 36,000 points among them.
    pool = RenderPool(1, memory=256 << 20, max_pixels=RENDER.max_pixels)
    yield pool
    pool.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: Path(row["file"]).name)
def test_the_corpus(probe: Sandbox, pool: RenderPool, row: dict[str, str]) -> None:
    path = CORPUS / row["file"]
    with path.open("rb") as file:
        fd = file.fileno()
        # An empty file has no kind; any kind gives the error.
        kind = sniff(file.read(SNIFF_BYTES)) or Kind.PDF

        def pages(*passwords: str) -> int:
            answer = probe.call({"kind": kind}, fd=fd, deadline=scaled(30), passwords=passwords)
            return int(answer["pages"])

        if path.name in PROBLEMS:
            with pytest.raises(PermanentError) as caught:
                pages()
            assert caught.value.reason == PROBLEMS[path.name]
            return
        if row["opens"] == "with password":
            for passwords in ((), ("wrong",)):
                with pytest.raises(PermanentError) as caught:
                    pages(*passwords)
                assert caught.value.reason == Reason.NEEDS_PASSWORD
        known = [row["password"]] if row["password"] else []
        assert pages(*known) == int(row["pages"])
        page = asyncio.run(pool.render(path.name, fd, kind, 0, RENDER, passwords=known, deadline=scaled(60)))
    assert page.width * page.height <= RENDER.max_pixels
    assert max(page.width, page.height) <= RENDER.long_side
    assert page.width / page.height == pytest.approx(page.width_pt / page.height_pt, rel=0.01)
    if kind is Kind.PDF:
        width, height = map(int, row["page_sizes_pt"].split()[0].split("x"))
        if row["pages"] == "1":
            assert (round(page.width_pt), round(page.height_pt)) == (width, height)
    blank = bool((page.pixels == page.pixels[0, 0]).all())
    assert blank == (path.name == "blank-page.pdf")
