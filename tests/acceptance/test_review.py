"""Pages for review: those with low confidence, and those with a text that a second engine does not confirm."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.desk import Desk
from tests.support.fakes.inventing import prose, write_proses

INVENTING = ["--engine", "inventing:InventingEngine"]
#: Prose that is on no page.
STORM = (
    "Then came a storm over the mountains which\nnobody had foreseen. It took the roofs of nine\nhouses, "
    "drowned the cattle in the meadows, and\nleft the mill without its wheel. In the evening\nthe sky was green."
)
PAGES = 20


def pages_of(desk: Desk, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((desk.out / f"{name}.json").read_text())["pages"]
    return found


def test_an_audit_marks_every_page_that_was_answered_with_what_is_not_on_it(desk: Desk) -> None:
    # Given twenty pages answered with the text of another or with prose that is on none, and four that are read rightly
    write_proses(desk.scans / "book.tif", list(range(PAGES + 4)))
    lies = {number: STORM if number % 2 else prose((number + 1) % PAGES) for number in range(PAGES)}
    desk.plan["answers"] = {str(number): text for number, text in lies.items()}

    # When a second engine reads all of them
    result = desk.run("run", "in", "-o", "out", *INVENTING, "--audit", "100%", "--json")

    # Then exactly the twenty are marked, and the summary names them
    assert result.returncode == 0, result.stderr
    pages = pages_of(desk, "book.tif")
    disagreeing = [page["page"] for page in pages if not page["audit"]["agrees"]]
    assert disagreeing == list(range(1, PAGES + 1))
    marked = {page["page"] for page in pages if page["review"]}
    assert marked >= set(disagreeing)
    assert all(page["audit"]["engine"].startswith("rapidocr") for page in pages)
    (told,) = json.loads(result.stdout)["results"]
    assert {doubt["page"] for doubt in told["review"]} == marked
    assert all("reads another text" in doubt["reason"] for doubt in told["review"] if doubt["page"] <= PAGES)


def test_scribble_is_for_review_and_print_is_not(desk: Desk) -> None:
    # Given a page of print, and one of strokes that are no letters
    write_proses(desk.scans / "print.tif", [1])
    Image.fromarray(scribble()).save(desk.scans / "scribble.png", dpi=(100, 100))

    # When the default engine reads both
    result = desk.run("run", "in", "-o", "out", "--json")

    # Then the print is not for review, and the scribble is, if any text was recognised
    told = {item["name"]: item for item in json.loads(result.stdout)["results"]}
    assert told["print.tif"]["review"] == []
    (page,) = pages_of(desk, "print.tif")
    assert page["confidence"] > 0.7
    assert page["worst_region"]["confidence"] > 0.8
    (page,) = pages_of(desk, "scribble.png")
    assert page["review"] or page["status"] == "failed"


def scribble() -> Any:
    """Return a page with twelve lines of loops, as of a pen."""
    sheet = np.full((900, 700), 250, np.uint8)
    chance = np.random.default_rng(7)
    for row in range(12):
        at = np.linspace(0, 150, 6000)
        x = 60 + at * 3.8 + 6 * np.sin(at * 2.1 + chance.uniform(0, 6))
        y = 60 + row * 68 + 12 * np.sin(at * 2.6) * np.sin(at * 0.37 + chance.uniform(0, 6)) + 5 * np.sin(at * 5.3)
        sheet[y.astype(int)[:, None] + np.arange(2), x.astype(int)[:, None]] = 40
    return sheet


@pytest.mark.parametrize("share", ["2", "101%", "much", "-1%"])
def test_a_share_that_is_none_is_refused(desk: Desk, share: str) -> None:
    result = desk.run("run", "in", "-o", "out", f"--audit={share}")
    assert result.returncode == 2
    assert "write a share of the pages" in result.stderr
