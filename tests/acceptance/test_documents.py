"""The project's own samples, passwords and languages, through the whole command."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from producer.samples.files import SAMPLES, expected_words
from tests.support.desk import Desk
from tests.support.servers import lacking
from tests.support.waiting import rest

#: It takes a minute or two, and several on a busy machine.
pytestmark = pytest.mark.timeout(900)


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
        rest(0.05)
    assert process.returncode == 0
    assert desk.outputs()["encrypted-user.pdf.md"].decode().count("<!-- page 1 -->") == 1
    everything = b"".join(path.read_bytes() for path in desk.out.rglob("*") if path.is_file())
    assert b"openpassword" not in everything
    assert not [line for line in lines if "openpassword" in line]
    assert len(lines) >= 3


def test_tesseract_reads_the_given_language(corpus: Path, desk: Desk) -> None:
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


def test_a_language_that_is_not_installed_is_reported_in_one_line(desk: Desk) -> None:
    desk.run("samples", "in")
    result = desk.run("run", "in/letter.pdf", "-o", "out", "--engine", "tesseract", "--language", "qqq")
    assert result.returncode == 3
    assert "Can't start:" in result.stderr
    assert "qqq" in result.stderr or "not installed" in result.stderr


def test_without_tesseract_the_error_names_the_package(desk: Desk) -> None:
    desk.run("samples", "in")
    environment = {"PATH": str(desk.folder)}
    result = desk.run("run", "in/letter.pdf", "-o", "out", "--engine", "tesseract", environment=environment)
    assert result.returncode == 3
    assert "apt" in result.stderr
    assert os.environ["PATH"] != environment["PATH"]
