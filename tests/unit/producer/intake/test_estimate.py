"""`submit --dry-run`: an estimate from the pages of some documents, without submitting any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pymupdf
import pytest
import typer
from typer.testing import CliRunner

from ocrfleet.broker.ledger import Ledger
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.workers import WorkerState
from producer.cli.submit import submit
from producer.errors import UsageError
from tests.support.servers import SeaweedFS, Valkey


def pdf(pages: int) -> bytes:
    with pymupdf.open() as document:
        for _ in range(pages):
            document.new_page()
        return document.tobytes()  # type: ignore[no-any-return]


@pytest.fixture
def store(tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCRFLEET_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("OCRFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OCRFLEET_REDIS_URL", valkey.url)
    return tmp_path / "store"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.pdf").write_bytes(pdf(3))
    (folder / "a.png").write_bytes(b"counted by its name")
    (folder / "notes.txt").write_text("no document")
    return folder


def kept(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


def run(*words: str) -> str:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(submit)
    ended = CliRunner().invoke(app, words, env={"COLUMNS": "300"}, catch_exceptions=False)
    assert ended.exit_code == 0
    return ended.stdout


def told(*words: str) -> Any:
    return json.loads(run(*words, "--dry-run", "--json"))


def test_the_pages_of_files_are_estimated_from_a_sample_without_submitting(store: Path, scans: Path) -> None:
    facts = told(str(scans))
    size = sum(path.stat().st_size for path in scans.iterdir() if path.suffix != ".txt")
    assert (facts["documents"], facts["known"], facts["skipped"], facts["bytes"]) == (13, 0, 1, size)
    # Ten of the twelve PDFs were counted, and an image has one page
    assert (facts["pages"], facts["pages_exact"]) == (37, False)
    # Without a worker, the speed is that of the setting
    assert (facts["workers"], facts["pages_per_second"], facts["hours"]) == (0, 2.5, round(37 / 2.5 / 3600, 3))
    assert "cost" not in facts
    said = run(str(scans), "--dry-run")
    assert "13 documents" in said
    assert "about 37 pages (10 of 12 PDFs and TIFFs were counted)" in said
    assert "no worker serves rapidocr now" in said
    assert kept(store) == []


def test_hours_and_cost_follow_from_the_workers_that_serve_the_profile(
    store: Path, scans: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCRFLEET_PRICE_PER_GPU_HOUR", "3600")
    ledger = Ledger(valkey.url)
    for name, digest in (("a", RAPIDOCR.digest), ("b", RAPIDOCR.digest), ("other", "0" * 64)):
        state = WorkerState(worker=name, profile="p", profile_digest=digest, seconds=99, busy_seconds=50, pages=100)
        ledger.heartbeat(state, 30)
    # Two pages of each PDF, and none of the image, at two pages a second of each of two workers
    facts = told(str(scans), "--pages", "2-9")
    assert (facts["pages"], facts["workers"], facts["pages_per_second"]) == (24, 2, 4.0)
    assert facts["cost"] == 24 / 4 * 2
    assert "12.00 at 3600 for the hour of a GPU" in run(str(scans), "--pages", "2-9", "--dry-run")


def test_the_estimate_of_a_prefix_skips_known_objects(
    store: Path, seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCRFLEET_S3_ENDPOINT_URL", seaweed.endpoint)
    bucket = seaweed.bucket()
    seaweed.client.put_object(Bucket=bucket, Key="in/a.pdf", Body=pdf(2))
    run(f"s3://{bucket}/in/")
    stored = kept(store)
    # Given two more, one of which can't be read
    seaweed.client.put_object(Bucket=bucket, Key="in/b c.pdf", Body=pdf(5))
    seaweed.client.put_object(Bucket=bucket, Key="in/torn.pdf", Body=b"torn")
    for _ in range(2):
        facts = told(f"s3://{bucket}/in/")
        assert (facts["documents"], facts["known"], facts["pages"], facts["pages_exact"]) == (2, 1, 5, True)
        assert [problem["name"] for problem in facts["problems"]] == ["in/torn.pdf"]
    assert "in/torn.pdf: unsupported" in run(f"s3://{bucket}/in/", "--dry-run")
    assert kept(store) == stored


def test_wait_and_dry_run_exclude_each_other(store: Path, scans: Path) -> None:
    with pytest.raises(UsageError, match="--dry-run"):
        run(str(scans), "--wait", "--dry-run")
