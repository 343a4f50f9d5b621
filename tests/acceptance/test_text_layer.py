"""`--text-layer` and `--script` from outside: which pages use their text layer, and what the report says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from producer.samples.files import expected_words
from tests.support.desk import Desk
from tests.support.fakes.misbehaving import PRINT

#: Two samples of two pages each: one born-digital, one of images only.
BORN, SCAN = "letter.pdf", "scan.pdf"
#: An engine that returns the same text on every page, which differs from the text layer.
SAME = ["--engine", "misbehaving:PrintEngine"]

CYRILLIC = "\n".join(
    ["Паром отошёл в девять часов, как и каждый день,", "на борту почта, шесть овец и больше никого."] * 2
)


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def expected(name: str) -> list[list[str]]:
    """The words of each page."""
    return [words(" ".join(page)) for page in expected_words(name)]


@pytest.fixture
def samples(desk: Desk) -> Desk:
    """The two samples, in the folder for scans."""
    assert desk.run("samples", "samples").returncode == 0
    for name in (BORN, SCAN):
        (desk.folder / "samples" / name).rename(desk.scans / name)
    return desk


def results(stdout: str) -> dict[str, Any]:
    """The status of each document, by its name."""
    return {item["name"]: item for item in json.loads(stdout)["results"]}


def pages(desk: Desk, name: str) -> list[dict[str, Any]]:
    pages: list[dict[str, Any]] = json.loads(desk.outputs()[f"{name}.json"])["pages"]
    return pages


def test_where_it_is_preferred_a_text_that_is_there_is_taken_and_a_scan_is_read(samples: Desk) -> None:
    result = samples.run("run", "in", "-o", "out", "--text-layer", "prefer", "--json")
    assert result.returncode == 0, result.stderr
    # Then the report counts the pages with text from the PDF
    told = results(result.stdout)
    assert {name: (item["pages_done"], item["pages_from_text_layer"]) for name, item in told.items()} == {
        BORN: (2, 2),
        SCAN: (2, 0),
    }
    assert [page["text_layer"] for name in (BORN, SCAN) for page in pages(samples, name)] == [True, True, False, False]
    # And that text has no wrong, missing or misplaced word
    assert [words(page["text"]) for page in pages(samples, BORN)] == expected(BORN)
    assert all(page["lines"] for page in pages(samples, BORN))
    # And the scan has at most 4 % wrong words
    for page, wanted in zip(pages(samples, SCAN), expected(SCAN), strict=True):
        assert len(set(wanted) - set(words(page["text"]))) <= len(set(wanted)) * 0.04


def test_the_report_counts_pages_read_from_their_text_layer(samples: Desk) -> None:
    result = samples.run("run", f"in/{BORN}", "-o", "out", "--text-layer", "prefer", *SAME)
    assert "2 pages done, 2 from their text layer, 0 failed" in " ".join(result.stdout.split())


def test_by_default_every_page_is_read(samples: Desk) -> None:
    result = samples.run("run", "in", "-o", "out", "--json", *SAME)
    assert result.returncode == 0, result.stderr
    assert [item["pages_from_text_layer"] for item in results(result.stdout).values()] == [0, 0]
    assert [page["text"] for page in pages(samples, BORN)] == [PRINT] * 2


def test_where_it_is_all_that_is_wanted_a_scan_fails_and_is_not_read(samples: Desk) -> None:
    result = samples.run("run", "in", "-o", "out", "--text-layer", "only", "--json", *SAME)
    assert result.returncode == 1, result.stderr
    told = results(result.stdout)
    assert {name: item["status"] for name, item in told.items()} == {BORN: "completed", SCAN: "failed"}
    assert {name: item["pages_from_text_layer"] for name, item in told.items()} == {BORN: 2, SCAN: 0}
    assert [words(page["text"]) for page in pages(samples, BORN)] == expected(BORN)
    # Then each page of the scan has the reason and a remedy
    failures = told[SCAN]["failures"]
    assert [(failure["page"], failure["reason"]) for failure in failures] == [
        (1, "no_text_layer"),
        (2, "no_text_layer"),
    ]
    assert all("--text-layer prefer" in failure["detail"] for failure in failures)
    # And no engine has read it
    assert [page["text"] for page in pages(samples, SCAN)] == ["", ""]
    assert "> **Page 2 is missing:**" in samples.outputs()[f"{SCAN}.md"].decode()


def test_pages_that_failed_for_want_of_a_text_are_read_when_that_is_asked_for(samples: Desk) -> None:
    assert samples.run("run", "in", "-o", "out", "--text-layer", "only", *SAME).returncode == 1
    # Another --text-layer makes another document: no state must be removed first
    assert samples.run("run", "in", "-o", "out", "--text-layer", "prefer", *SAME).returncode == 0
    assert [page["text"] for page in pages(samples, SCAN)] == [PRINT] * 2
    assert [page["text_layer"] for page in pages(samples, BORN)] == [True, True]


def test_a_text_in_another_script_than_was_said_is_no_pages_text(samples: Desk) -> None:
    # Given an English letter with the option of a Cyrillic script
    wanted = ["--text-layer", "only", "--script", "cyrillic"]
    result = samples.run("run", f"in/{BORN}", "-o", "out", *wanted, "--json", *SAME)
    # Then no page is done with a text in a wrong script
    item = results(result.stdout)[BORN]
    assert (result.returncode, item["status"], item["pages_done"]) == (1, "failed", 0)
    assert [failure["page"] for failure in item["failures"]] == [1, 2]
    assert {failure["reason"] for failure in item["failures"]} <= {"wrong_script", "no_text_layer"}
    assert [page["status"] for page in pages(samples, BORN)] == ["failed", "failed"]
    # And the report counts none
    assert item["pages_from_text_layer"] == 0


def test_a_page_with_a_text_layer_in_another_script_is_recognised(samples: Desk) -> None:
    # Given PDFs whose text is in Latin letters, as where a font is mapped wrongly, and an engine that reads Cyrillic ones
    samples.plan["print"] = CYRILLIC
    wanted = ["--text-layer", "prefer", "--script", "cyrillic"]
    result = samples.run("run", "in", "-o", "out", *wanted, "--json", *SAME)
    # Then each page is recognised, as without a text layer
    assert {name: item["failures"] for name, item in results(result.stdout).items()} == {BORN: [], SCAN: []}
    assert result.returncode == 0
    assert [page["text"] for name in (BORN, SCAN) for page in pages(samples, name)] == [CYRILLIC] * 4
    assert {item["pages_from_text_layer"] for item in results(result.stdout).values()} == {0}


def test_a_text_layer_in_one_of_the_given_scripts_is_used(samples: Desk) -> None:
    scripts = ["--script", "Cyrillic", "--script", "latin"]
    result = samples.run("run", f"in/{BORN}", "-o", "out", "--text-layer", "only", *scripts, "--json", *SAME)
    assert result.returncode == 0, result.stdout
    assert results(result.stdout)[BORN]["pages_from_text_layer"] == 2
