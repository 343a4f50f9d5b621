"""The files that a run skipped, kept in its output folder for the report."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from producer.intake.discover import Skipped

_NAME = "skipped.json"


def keep_skipped(state: Path, skipped: list[Skipped]) -> None:
    """Keep the files that the latest run skipped. A full disk is no reason to fail the run."""
    with suppress(OSError):
        rows = [[item.name, item.reason] for item in skipped]
        (state / _NAME).write_text(json.dumps(rows), encoding="ascii")


def skipped_by(state: Path) -> list[tuple[str, str]]:
    """Return name and reason of each file that the latest run skipped; none for runs of versions that kept none."""
    try:
        rows = json.loads((state / _NAME).read_text(encoding="ascii"))
        return [(str(name), str(reason)) for name, reason in rows]
    except (OSError, ValueError, TypeError):
        return []
