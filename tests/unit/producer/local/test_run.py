"""The main loop of `ocrfleet run`: races that can't be forced from outside."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.settings import Settings
from producer.local.run import Order, Run


def test_a_document_that_is_said_to_have_ended_once_more_after_its_delivery_is_no_error(tmp_path: Path) -> None:
    # Given an intake thread that reads the status of a document that the main loop has just delivered
    run = Run(Order((tmp_path,), tmp_path / "out", RAPIDOCR), Settings())
    run._ended.add("0" * 32)

    run._deliver()

    assert not run._ended
    assert run.report.ended == []


def test_settings_of_an_embedded_fleet_are_its_own_unless_they_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used() -> dict[str, object]:
        with structlog.testing.capture_logs() as entries:
            Run(Order((tmp_path,), tmp_path / "out", RAPIDOCR, workers=2), Settings())
        (entry,) = [entry for entry in entries if entry["event"] == "run.settings"]
        return {name: entry[name] for name in ("lease_seconds", "sweep_seconds", "drain_seconds", "backlog_pages")}

    assert used() == {"lease_seconds": 10, "sweep_seconds": 3, "drain_seconds": 10, "backlog_pages": 64}
    monkeypatch.setenv("OCRFLEET_LEASE_SECONDS", "60")
    monkeypatch.setenv("OCRFLEET_SWEEP_SECONDS", "7")
    monkeypatch.setenv("OCRFLEET_DRAIN_SECONDS", "0")
    monkeypatch.setenv("OCRFLEET_BACKLOG_PAGES", "5")
    assert used() == {"lease_seconds": 60, "sweep_seconds": 7, "drain_seconds": 0, "backlog_pages": 5}
