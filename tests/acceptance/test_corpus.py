"""Real documents, read in one run of the whole command with the CPU engine that it ships."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.desk import Desk

#: It takes a minute or two, and several on a busy machine.
pytestmark = pytest.mark.timeout(900)

#: Expected outcome of each broken or unusual file of the corpus; all others complete.
PROBLEMS = {
    "corrupt-unrecoverable.pdf": "no_pages",
    "encrypted-user.pdf": "needs_password",
    "header-only.pdf": "unreadable",
    "zero-bytes.pdf": "empty_file",
    "zero-pages.pdf": "no_pages",
}
#: Words that prove the right orientation of a page, by the orientation tag of an image or /Rotate of a page.
WORDS = {
    "born-single.pdf": "Beautiful is better than ugly",
    "corrupt-repairable.pdf": "Beautiful is better than ugly",
    "form-aes-owner.pdf": "APPLICATION FOR THE REVIEW OF DISCHARGE",
    "gt-eurotext.tif": "quick brown",
    "gt-lorem-scan.pdf": "Lorem ipsum",
    "rotated-90.pdf": "Docling bundles PDF document conversion",
    "scan-modern.pdf": "The syllabus constitutes no part of the opinion",
    "jbig2.pdf": "MESSAGE OF THE PRESIDENT OF THE UNITED STATES",
    "ccitt.pdf": "Track MIDI Sequence Recorder",
    "huge-page.pdf": "Track MIDI Sequence Recorder",
    "webp.webp": "PDF document conversion to JSON and Markdown",
    "typewriter.png": "4 ons linzen",
}


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


@pytest.fixture(scope="module")
def corpus_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One run over the whole corpus, two pages of each document, and a second one with the password."""
    desk = Desk(tmp_path_factory.mktemp("corpus"))
    files = corpus / "files"
    first = desk.run("run", files, "-o", "out", "--pages", "1-2", "--json", seconds=800)
    log = "".join(path.read_text() for path in (desk.out / ".ocrfleet" / "logs").glob("worker-*.log"))
    yield desk, first, log
    desk.close()


def manifest(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "manifest.csv").open(newline="") as rows:
        return list(csv.DictReader(rows))


def test_every_file_of_the_corpus_has_its_expected_result(corpus: Path, corpus_run: Any) -> None:
    _, first, _ = corpus_run
    assert first.returncode == 1
    results = {item["name"]: item for item in json.loads(first.stdout)["results"]}
    assert set(results) == {Path(row["file"]).name for row in manifest(corpus)}
    for row in manifest(corpus):
        name = Path(row["file"]).name
        item = results[name]
        failures = [failure["reason"] for failure in item["failures"]]
        if name in PROBLEMS:
            assert (item["status"], failures) == ("failed", [PROBLEMS[name]]), name
        else:
            assert (item["status"], failures) == ("completed", []), name
            assert item["pages_done"] == min(2, int(row["pages"])), name


def test_no_output_claims_success_for_what_failed(corpus_run: Any) -> None:
    desk, _, log = corpus_run
    for name, reason in PROBLEMS.items():
        document = json.loads(desk.outputs()[f"{name}.json"])
        assert (document["status"], document["problem"]["reason"], document["pages"]) == ("failed", reason, [])
        assert "could not be read" in desk.outputs()[f"{name}.md"].decode()
    assert '"status": "completed", "pages": 0' not in log


def test_pages_are_read_the_right_way_up(corpus_run: Any) -> None:
    desk, _, _ = corpus_run
    for name, expected in WORDS.items():
        text = " ".join(page["text"] for page in json.loads(desk.outputs()[f"{name}.json"])["pages"])
        assert " ".join(words(expected)) in " ".join(words(text)), (name, text[:300])


def test_a_blank_page_is_done_empty_and_marked_and_no_engine_saw_it(corpus_run: Any) -> None:
    desk, _, _ = corpus_run
    (page,) = json.loads(desk.outputs()["blank-page.pdf.json"])["pages"]
    assert (page["status"], page["blank"], page["text"], page["lines"]) == ("done", True, "", [])
    runs = (desk.out / ".ocrfleet" / "store" / "documents").glob("*/runs/*/*.json")
    attempts = [attempt for run in runs for attempt in json.loads(run.read_text())["attempts"]]
    assert sum("recognise_seconds" not in attempt for attempt in attempts) >= 1
    assert "<!-- page 1 blank -->" in desk.outputs()["blank-page.pdf.md"].decode()
