"""Real documents and the project's own samples, through the whole command with the CPU engine that it ships."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from producer.samples.files import SAMPLES, expected_words
from tests.support.desk import Desk
from tests.support.servers import lacking

#: It takes a minute or two, and several on a busy machine.
pytestmark = pytest.mark.timeout(900)

#: What becomes of each broken or unusual file of the corpus; all others complete.
PROBLEMS = {
    "corrupt-unrecoverable.pdf": "no_pages",
    "encrypted-user.pdf": "needs_password",
    "header-only.pdf": "unreadable",
    "zero-bytes.pdf": "empty_file",
    "zero-pages.pdf": "no_pages",
}
#: Words that a page must hold to have been read the right way up, by a picture's orientation or a page's /Rotate.
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


def test_the_samples_are_read_word_for_word(desk: Desk) -> None:
    assert desk.run("samples", "samples").returncode == 0
    result = desk.run("run", "samples", "-o", "out", "--json")
    assert result.returncode == 0, result.stdout
    assert {item["name"] for item in json.loads(result.stdout)["results"]} == set(SAMPLES)
    for name in SAMPLES:
        document = json.loads(desk.outputs()[f"{name}.json"])
        for page, expected in zip(document["pages"], expected_words(name), strict=True):
            found = words(page["text"])
            wanted = words(" ".join(expected))
            assert len(set(wanted) - set(found)) <= len(set(wanted)) * 0.04, f"{name} page {page['page']}"
            assert page["lines"], "lines have boxes"
    # Columns one after the other, the footnote last
    text = words(json.loads(desk.outputs()["two-columns.pdf.json"])["pages"][0]["text"])
    order = [
        text.index(word)
        for word in dict.fromkeys(words(" ".join(expected_words("two-columns.pdf")[0])))
        if word in text
    ]
    assert sum(a > b for a, b in pairwise(order)) <= len(order) * 0.02


@pytest.fixture(scope="module")
def corpus_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One run over the whole corpus, two pages of each document, and a second one with the password."""
    desk = Desk(tmp_path_factory.mktemp("corpus"))
    files = corpus / "files"
    first = desk.run("run", files, "-o", "out", "--pages", "1-2", "--json", timeout=800)
    log = "".join(path.read_text() for path in (desk.out / ".ocrfleet" / "logs").glob("worker-*.log"))
    yield desk, first, log
    desk.close()


def manifest(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "manifest.csv").open(newline="") as rows:
        return list(csv.DictReader(rows))


def test_every_file_of_the_corpus_ends_as_it_should(corpus: Path, corpus_run: Any) -> None:
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


def test_an_encrypted_document_opens_with_its_password_which_is_written_nowhere(corpus: Path, desk: Desk) -> None:
    (desk.folder / "passwords").write_text("wrong one\nopenpassword\n")
    source = corpus / "files" / "encrypted-user.pdf"
    wrong = desk.folder / "wrong"
    wrong.write_text("not this\n")
    refused = desk.run("run", source, "-o", "out", "--password-file", "wrong")
    assert refused.returncode == 1
    assert "needs_password" in refused.stdout
    process = desk.start("run", source, "-o", "out", "--password-file", "passwords")
    lines: set[str] = set()
    while process.poll() is None:
        for one in desk.family(process):
            with suppress(psutil.Error):
                lines.add(" ".join(one.cmdline()))
    assert process.returncode == 0
    assert desk.outputs()["encrypted-user.pdf.md"].decode().count("<!-- page 1 -->") == 1
    everything = b"".join(path.read_bytes() for path in desk.out.rglob("*") if path.is_file())
    assert b"openpassword" not in everything
    assert not [line for line in lines if "openpassword" in line]
    assert len(lines) >= 3


def test_tesseract_reads_what_it_is_told_to(corpus: Path, desk: Desk) -> None:
    if shutil.which("tesseract") is None:
        lacking("tesseract")
    source = corpus / "files" / "gt-fraktur-1879.tif"
    result = desk.run("run", source, "-o", "out", "--engine", "tesseract", "--language", "Fraktur")
    assert result.returncode == 0, result.stderr
    document = json.loads(desk.outputs()["gt-fraktur-1879.tif.json"])
    assert document["profile"].startswith("tesseract-fraktur")
    assert "tesseract" in document["pages"][0]["engine_version"]
    truth = (corpus / "gt" / "gt-fraktur-1879.txt").read_text()
    shared = set(words(truth)) & set(words(document["pages"][0]["text"]))
    assert len(shared) > 0.5 * len(set(words(truth)))


def test_a_language_that_is_not_installed_is_one_clear_line(desk: Desk) -> None:
    desk.run("samples", "in")
    result = desk.run("run", "in/letter.pdf", "-o", "out", "--engine", "tesseract", "--language", "qqq")
    assert result.returncode == 3
    assert "Can't start:" in result.stderr
    assert "qqq" in result.stderr or "not installed" in result.stderr


def test_without_tesseract_it_says_how_to_get_it(desk: Desk) -> None:
    desk.run("samples", "in")
    environment = {"PATH": str(desk.folder)}
    result = desk.run("run", "in/letter.pdf", "-o", "out", "--engine", "tesseract", environment=environment)
    assert result.returncode == 3
    assert "apt" in result.stderr
    assert os.environ["PATH"] != environment["PATH"]
