"""Small files that failed in the past: each is read, or refused with the correct reason."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from ocrfleet.profiles.scripts import SCRIPTS as ALL_SCRIPTS
from tests.support.desk import Desk
from tests.support.servers import ROOT

CASES = Path(os.environ.get("OCRFLEET_CASES", ROOT.parent / "shared" / "cases"))
#: Texts of the files; only words of at least four letters are compared.
TEXT = (
    "The harbour master wrote in the ledger that seven barges had left before dawn, carrying timber, salt and winter apples. "
    "Nobody on the northern quay remembered a colder November than that of 1874, when the river froze below the bridge and "
    "the ferryman walked home at noon."
)
WORDS = [word for word in re.findall(r"\w+", TEXT) if len(word) >= 4]

#: The files to read, and their expected results.
READ: dict[str, set[str]] = {
    "alpha-all-zero.png": {"transparency"},
    "alpha-white-on-transparent.png": {"transparency"},
    "cropbox-outside.pdf": set(),
    "fax-orientation6.tif": set(),
    "fax-upright-ok.tif": set(),
    "grey16-big-endian.tif": set(),
    "png-bad-crc-text.png": {"data_damaged"},
    "png-big-ztxt.png": set(),
    "ps-adobe-header.pdf": {"repaired"},
    "resolution-300x72.tif": set(),
    "tiff-jpeg2000.tif": set(),
    "tiff-old-subfiletype.tif": set(),
    "torn-ccitt-more-rows-declared.pdf": {"image_incomplete", "data_ended_early"},
    "torn-control-ok.pdf": set(),
    "torn-flate-unfinished-annot.pdf": {"data_ended_early"},
    "torn-flate-without-checksum.pdf": {"data_ended_early"},
    "torn-flate-zero-bytes-form.pdf": {"data_ended_early"},
    "torn-font-program-broken.pdf": {"font_substituted"},
    "torn-jpeg-without-eoi.jpg": {"data_damaged"},
    "torn-jpeg-without-eoi.pdf": {"data_ended_early"},
}
OTHERS = ["jpeg-ascii-transfer.pdf", "portfolio.pdf", "rgb16-planar-raw.tif", "xfa-dynamic.pdf"]
#: The files in scripts that the default engine lacks.
SCRIPTS = {
    "script-arabic.png": "Arabic",
    "script-armenian.png": "Armenian",
    "script-korean.pdf": "Hangul",
    "script-vietnamese.png": "Vietnamese",
}
LAYERS = ["layer-image-stamp.pdf", "layer-redacted.pdf"]


def test_there_are_cases() -> None:
    if not CASES.exists() and os.environ.get("CI") != "true":
        pytest.skip("no cases: set OCRFLEET_CASES to their folder")
    assert CASES.exists()


def ran(names: list[str], *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the status of each document, and its only page."""
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        for name in names:
            shutil.copy(CASES / name, desk.scans / name)
        result = desk.run("run", "in", "-o", "out", "--json", *options)
        told = {item["name"]: item for item in json.loads(result.stdout)["results"]}
        outputs = desk.outputs()
        desk.close()
    pages = {name: (json.loads(outputs[f"{name}.json"])["pages"] or [None])[0] for name in names}
    return told, pages


@pytest.fixture(scope="module")
def cases_run() -> tuple[dict[str, Any], dict[str, Any]]:
    if not CASES.exists():
        pytest.skip("no cases")
    return ran([*READ, *OTHERS, *SCRIPTS])


@pytest.mark.parametrize("name", READ)
def test_text_that_viewers_show_is_read(cases_run: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    told, pages = cases_run
    assert told[name]["status"] == "completed"
    assert [word for word in WORDS if word not in pages[name]["text"]] == []
    assert {warning["code"] for warning in pages[name]["warnings"]} == READ[name]
    assert told[name]["warnings"] == dict.fromkeys(sorted(READ[name]), 1)


def test_a_planar_picture_of_16_bits_is_decoded(cases_run: tuple[dict[str, Any], dict[str, Any]]) -> None:
    text = cases_run[1]["rgb16-planar-raw.tif"]["text"]
    assert [word for word in WORDS[:9] if word not in text] == []


def test_a_portfolio_has_a_warning_that_its_documents_were_not_read(
    cases_run: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    page = cases_run[1]["portfolio.pdf"]
    assert "portfolio" in page["text"]
    (warning,) = page["warnings"]
    assert warning["code"] == "attachments_not_read"
    assert warning["detail"].startswith("2 attached files were not read")


def test_noise_and_a_dynamic_form_are_refused_with_a_remedy(cases_run: tuple[dict[str, Any], dict[str, Any]]) -> None:
    told, pages = cases_run
    (failure,) = told["jpeg-ascii-transfer.pdf"]["failures"]
    assert (failure["page"], failure["reason"]) == (1, "unreadable")
    assert "binary mode" in failure["detail"]
    (failure,) = told["xfa-dynamic.pdf"]["failures"]
    assert (failure["page"], failure["reason"]) == (None, "unsupported")
    assert "print it to PDF in Acrobat" in failure["detail"]
    assert pages["xfa-dynamic.pdf"] is None


def test_a_text_layer_gives_only_visible_words() -> None:
    if not CASES.exists():
        pytest.skip("no cases")
    _, pages = ran(LAYERS, "--text-layer", "prefer")
    stamped, redacted = (pages[name]["text"] for name in LAYERS)
    assert [word for word in WORDS if word not in stamped] == []
    assert "RECEIVED 14 JUNE" in stamped
    assert "timber, salt" not in " ".join(redacted.split())
    hidden = {"carrying", "winter", "apples"}
    assert [word for word in WORDS if word not in hidden and word not in redacted] == []
    assert "timber" not in redacted.partition("Nobody")[0]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_the_engine_lacks_is_read_by_tesseract_or_named(
    cases_run: tuple[dict[str, Any], dict[str, Any]], name: str
) -> None:
    told, pages = cases_run
    script, page = ALL_SCRIPTS[SCRIPTS[name]], pages[name]
    if set(script.languages) & installed():
        assert told[name]["status"] == "completed"
        assert page["engine"] == "tesseract"
        letters = [letter for letter in page["text"] if letter.isalpha()]
        assert sum(unicodedata.name(letter).startswith(script.unicode) for letter in letters) > 0.9 * len(letters)
    else:
        (failure,) = told[name]["failures"]
        assert (failure["page"], failure["reason"]) == (1, "unsupported_script")
        assert script.name in failure["detail"]
        assert f"apt install tesseract-ocr {script.package}" in failure["detail"]


def installed() -> set[str]:
    """Return the names of Tesseract's models on this machine."""
    if shutil.which("tesseract") is None:
        return set()
    return set(subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=True).stdout.split())
