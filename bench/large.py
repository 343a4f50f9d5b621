"""Peak memory of all processes of a fleet for a file of 2 GB and a PDF of 5,000 pages. It must not grow with either.

    python -m bench.large [--megabytes 2000] [--pages 5000] [--limit 64]

The store is a real SeaweedFS. `serve` with its intake consumer accepts uploads over HTTP; a worker fetches, renders and
assembles. The test engine does no work. The same processes first get a small input, then the large one; the bench compares the
peaks of their resident memory before and after. The large file is an image of two pages followed by zeros:
files are sent, stored, fetched and hashed as a whole. The small one has 50 MB, so that it is also a multipart upload.

Seconds include all processes on one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pymupdf

from bench.peaks import Peaks
from tests.support.fakes.numbered import write_book
from tests.support.servers import FAKES, SeaweedFS, Valkey, free_ports

OCRFLEET = str(Path(sys.executable).with_name("ocrfleet"))
ENGINE = ["--engine", "numbered:NumberedEngine"]
TOKEN = "t" * 32
#: Parts of command lines that identify processes.
ROLES = {
    "producer.intake.consumer": "clerk",
    "ocrfleet.sandbox.fork_server_main": "sandboxes",
    "-m worker": "worker",
    "/ocrfleet serve": "serve",
    "/ocrfleet worker": "supervisor",
}


class Fleet:
    """`serve` and a worker with their own store."""

    def __init__(self, folder: Path, seaweed: SeaweedFS, valkey: Valkey) -> None:
        (port,) = free_ports(1)
        self._environment = {
            **os.environ,
            **seaweed.environment,
            "PYTHONPATH": str(FAKES),
            "OCRFLEET_S3_ENDPOINT_URL": seaweed.endpoint,
            "OCRFLEET_STORE": f"s3://{seaweed.bucket()}/fleet",
            "OCRFLEET_REDIS_URL": valkey.url,
            "OCRFLEET_CACHE": str(folder / "cache"),
            "OCRFLEET_API_TOKENS": TOKEN,
            "OCRFLEET_LOG_LEVEL": "warning",
            "TMPDIR": str(folder),
        }
        self.log = folder / "log"
        self.processes = [self._start("serve", "--port", str(port)), self._start("worker")]
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=900
        )
        while not self._ready():
            assert all(process.poll() is None for process in self.processes), self.log.read_text()
            time.sleep(0.2)

    def read(self, path: Path, media: str) -> tuple[dict[str, Any], float, float]:
        """Send a file and wait for its text; return the status of the document, and the seconds of sending and reading."""
        begun = time.monotonic()
        with path.open("rb") as file:
            answer = self.client.post("/v1/documents", content=file, headers={"Content-Type": media})
        assert answer.status_code == 201, answer.text
        place, sent = answer.headers["location"], time.monotonic()
        while (view := self.client.get(place).json())["state"] in {"waiting", "active"}:
            time.sleep(0.5)
        assert view["state"] == "completed", view
        for extension, output in view["outputs"].items():
            sha = hashlib.sha256()
            with self.client.stream("GET", f"{place}/result?format={extension}", follow_redirects=True) as result:
                for piece in result.iter_bytes():
                    sha.update(piece)
            assert sha.hexdigest() == output["sha256"]
        return view, sent - begun, time.monotonic() - sent

    def close(self) -> None:
        self.client.close()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen([OCRFLEET, *words, *ENGINE], env=self._environment, stdout=log, stderr=log)

    def _ready(self) -> bool:
        with suppress(httpx.TransportError):
            return self.client.get("/readyz").is_success
        return False


def pdf(path: Path, pages: int) -> Path:
    """Write a PDF of `pages` pages, each with different words."""
    with pymupdf.open() as document:
        for number in range(pages):
            document.new_page(width=200, height=280).insert_textbox((20, 60, 180, 240), f"Sheet {number}", fontsize=26)
        document.save(path)
    return path


def image(path: Path, megabytes: int) -> Path:
    """Write an image of two pages, followed by zeros."""
    write_book(path, [1, 2])
    os.truncate(path, megabytes * 1_000_000)
    return path


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        seaweed, valkey = SeaweedFS(), Valkey()
        stack.callback(seaweed.close)
        stack.callback(valkey.close)
        made = Fleet(folder, seaweed, valkey)
        stack.callback(made.close)
        yield made


def compare(small: tuple[Path, str], large: tuple[Path, str], limit: float) -> bool:
    """Read both inputs with one fleet; print the peaks, and return whether they stay about the same."""
    with tempfile.TemporaryDirectory(prefix="ocrfleet-bench-") as folder, fleet(Path(folder)) as made:
        with Peaks(ROLES, *made.processes) as before:
            made.read(*small)
        with Peaks(ROLES, *made.processes) as after:
            view, sending, reading = made.read(*large)
    size = large[0].stat().st_size / 1_000_000
    print(f"{size:.0f} MB, {view['total']} pages: {sending:.1f} s to send, {reading:.1f} s until the text was fetched")
    flat = True
    for role, peak in sorted(after.highest.items()):
        grown = peak - before.highest.get(role, 0.0)
        flat &= grown <= limit
        print(f"  {role:<20}{peak:>8.0f} MiB at the peak, {grown:+.0f} MiB", flush=True)
    return flat


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=int, default=2000)
    options.add_argument("--pages", type=int, default=5000)
    options.add_argument("--limit", type=float, default=64, help="maximum growth of a process in MiB")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flat = compare(
            (image(folder / "small.tif", 50), "image/tiff"),
            (image(folder / "large.tif", chosen.megabytes), "image/tiff"),
            chosen.limit,
        )
        flat &= compare(
            (pdf(folder / "short.pdf", 50), "application/pdf"),
            (pdf(folder / "long.pdf", chosen.pages), "application/pdf"),
            chosen.limit,
        )
    print("flat" if flat else f"not flat: a process grew by more than {chosen.limit:.0f} MiB")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
