"""What was reported as stored survives a power cut: its data, its name and the names of its folders were flushed before.

What was removed and must not come back, as a revoked token, stays away.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.system_calls import record

#: Writes to the store and to an output folder from several threads, and reports each file.
PROGRAM = """
import io, os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ocrfleet.storage.store import FolderStore
from producer.delivery.to_folder import FolderSink

root = Path(sys.argv[1])
source = root / "source"
source.write_bytes(b"source")
store, other = FolderStore(root / "new" / "store"), FolderStore(root / "new" / "store")

def report(path):
    os.write(1, f"stored {path}\\n".encode())

def page(number):
    key = f"documents/{number % 3}/pages/{number}.json"
    for one in (store, other):  # the second finds what another process has just created
        one.create(key, b"page")
        report(root / "new/store" / key)

def put(number):
    store.put(f"documents/{number}/status.json", b"status")
    report(root / f"new/store/documents/{number}/status.json")

with ThreadPoolExecutor(8) as threads:
    list(threads.map(page, range(24)))
    list(threads.map(put, range(8)))
store.create_from("uploads/a/b", source)
report(root / "new/store/uploads/a/b")
for key in ("tokens/ci/a.json", "documents/1/manifest.json", "documents/1/wanted/tenant~a/b.json"):
    store.put(key, b"{}")
    store.delete(key)
    os.write(1, f"removed {root / 'new/store' / key}\\n".encode())
sink = FolderSink(root / "out" / "texts")
for name in ("a", "box/b", "box/c/d", "a"):
    sink.write(sink.target(name, "md"), io.BytesIO(name.encode()))
    report(sink.target(name, "md"))
"""


def test_what_was_reported_as_stored_survives_a_power_cut(tmp_path: Path) -> None:
    recording = record(PROGRAM, str(tmp_path), log=tmp_path / "strace.log")

    assert len(recording.stored) == 24 * 2 + 8 + 1 + 4
    assert len(recording.removed) == 3
    assert not list(recording.losses())


@pytest.mark.parametrize(
    ("missing", "loss"),
    [
        ("flush_file", "got its name before its data was flushed"),
        ("flush_folder", "was reported before its folder was flushed"),
        ("flush_folder", "was reported as removed before its folder was flushed"),
    ],
)
def test_the_rule_finds_a_program_that_does_not_flush(tmp_path: Path, missing: str, loss: str) -> None:
    without = f"import ocrfleet.durable\nocrfleet.durable.{missing} = lambda *_: None\n"

    recording = record(without + PROGRAM, str(tmp_path), log=tmp_path / "strace.log")

    assert any(loss in found for found in recording.losses())
