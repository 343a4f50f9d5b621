from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ocrfleet.scratch import scratch

_HOLD = "import sys, time; from ocrfleet.scratch import scratch\nwith scratch('test-') as f: print(f, flush=True); time.sleep(600)"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_scratch_folder_is_removed_with_its_block(temporary: Path) -> None:
    with scratch("test-") as folder:
        (folder / "a").write_text("a")
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(temporary: Path) -> None:
    # Given one that was killed, one that lives, one that has just begun, and something that is none of ours
    environment = {**os.environ, "TMPDIR": str(temporary)}
    processes = [
        subprocess.Popen([sys.executable, "-c", _HOLD], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    killed, living = [Path(process.stdout.readline().strip()) for process in processes if process.stdout]
    processes[0].kill()
    (killed / "page").write_text("text")
    begun, other = temporary / "test-begun", temporary / "other"
    for folder in (begun, other):
        folder.mkdir()
    (temporary / "test-link").symlink_to(other)
    for path in (killed, living, other):
        os.utime(path, (0, 0))
    processes[0].communicate()
    # When the next one begins
    with scratch("test-") as mine:
        left = set(temporary.iterdir())
    # Then only what the killed one had is gone
    assert left == {living, begun, other, mine, temporary / "test-link"}
    processes[1].kill()
    processes[1].communicate()
