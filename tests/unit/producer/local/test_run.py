"""The main loop's bookkeeping, where a race can't be forced from outside."""

from __future__ import annotations

from pathlib import Path

from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.settings import Settings
from producer.local.run import Order, Run


def test_a_document_that_is_said_to_have_ended_once_more_after_its_delivery_is_no_error(tmp_path: Path) -> None:
    # Given that the intake thread sees the status of a document that the main loop has just delivered
    run = Run(Order((tmp_path,), tmp_path / "out", RAPIDOCR), Settings())
    run._ended.add("0" * 32)

    run._deliver()

    assert not run._ended
    assert run.report.ended == []
