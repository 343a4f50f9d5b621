"""Requests and bytes between a fleet and its S3 store: per document, per page, and of an idle fleet.

    python -m bench.s3_requests [--documents 60] [--pages 300]

A real S3 server (SeaweedFS) counts them. `dispatch`, `watch --poll` every ten seconds and one worker with a test engine process
documents of one page, then the same number of pages in long documents. The requests of both rounds, minus those of an idle
fleet in the same time, are attributed to documents and pages. The text of a page has a few words.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.support.desk import NUMBERED, Desk
from tests.support.fakes.numbered import write_book
from tests.support.servers import SeaweedFS, Valkey, free_ports

#: Seconds to measure the idle fleet.
_IDLE = 60.0
_ROUND_DEADLINE = 600.0
_COUNTED = re.compile(r"^SeaweedFS_s3_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class CountingSeaweedFS(SeaweedFS):
    """S3 server that counts its requests by type."""

    metrics = 0

    def start(self) -> None:
        if not self.metrics:
            (self.metrics,) = free_ports(1)
            self._command += [f"-metricsPort={self.metrics}", "-metricsIp=127.0.0.1"]
        super().start()

    def counted(self) -> Counter[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics") as answer:
            text = answer.read().decode()
        found: Counter[str] = Counter()
        for labels, value in _COUNTED.findall(text):
            found[dict(_LABEL.findall(labels))["type"]] += int(float(value))
        return found


@dataclass(frozen=True)
class Taken:
    """Measurements of a round, from its first upload to its last result."""

    documents: int
    pages: int
    seconds: float
    requests: Counter[str]


class Fleet:
    def __init__(self, desk: Desk, valkey: Valkey, seaweed: CountingSeaweedFS) -> None:
        self.desk, self.seaweed = desk, seaweed
        self.inbox, self.texts, self.store = seaweed.bucket(), seaweed.bucket(), seaweed.bucket()
        environment = {
            **seaweed.environment,
            "OCRFLEET_S3_ENDPOINT_URL": seaweed.endpoint,
            "OCRFLEET_STORE": f"s3://{self.store}/fleet",
            "OCRFLEET_REDIS_URL": valkey.url,
            "OCRFLEET_CACHE": str(desk.folder / "cache"),
        }
        desk.start("dispatch", environment=environment)
        desk.start("worker", *NUMBERED, environment=environment)
        desk.start(
            *("watch", "--poll", f"s3://{self.inbox}/", "--every", "10", "--results", f"s3://{self.texts}/", *NUMBERED),
            environment=environment,
        )

    def idle(self, seconds: float) -> Counter[str]:
        before = self.seaweed.counted()
        time.sleep(seconds)
        return self.seaweed.counted() - before

    def read(self, name: str, documents: int, pages: int, *, first: int) -> Taken:
        """Read documents with this total number of pages, numbered from `first`."""
        each = pages // documents
        for number in range(documents):
            numbers = list(range(first + number * each, first + (number + 1) * each))
            path = write_book(self.desk.folder / "book.tif", numbers)
            self.seaweed.client.upload_file(str(path), self.inbox, f"{name}/{number:04}.tif")
        before, begun = self.seaweed.counted(), time.monotonic()
        # Poll the number of results rarely: the requests of the bench are counted too.
        while self._listed(self.texts, f"{name}/", ".status.json") < documents:
            if time.monotonic() - begun > _ROUND_DEADLINE:
                raise SystemExit(f"{name}: not all documents were read in {_ROUND_DEADLINE:.0f} s")
            time.sleep(5)
        return Taken(documents, pages, time.monotonic() - begun, self.seaweed.counted() - before)

    def stored(self, bucket: str, prefix: str = "") -> tuple[int, int]:
        """Return the number of objects below a prefix, and their size in bytes."""
        pages = self.seaweed.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        sizes = [item["Size"] for page in pages for item in page.get("Contents", ())]
        return len(sizes), sum(sizes)

    def _listed(self, bucket: str, prefix: str, suffix: str) -> int:
        pages = self.seaweed.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sum(item["Key"].endswith(suffix) for page in pages for item in page.get("Contents", ()))


def shared_out(rounds: list[Taken], idle: Counter[str], kind: str) -> tuple[float, float]:
    """Return the requests of a kind per document and per page."""
    facts = np.array([[taken.documents, taken.pages] for taken in rounds], dtype=float)
    asked = np.array([taken.requests[kind] - idle[kind] / _IDLE * taken.seconds for taken in rounds])
    documents, pages = np.linalg.solve(facts, asked)
    return float(documents), float(pages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--documents", type=int, default=60, help="number of documents of one page each, in the first round"
    )
    parser.add_argument("--pages", type=int, default=300, help="number of pages in six documents, in the second round")
    options = parser.parse_args()
    valkey, seaweed = Valkey(), CountingSeaweedFS()
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        try:
            fleet = Fleet(desk, valkey, seaweed)
            fleet.read("warm", 1, 1, first=0)
            idle = fleet.idle(_IDLE)
            rounds = [
                fleet.read("short", options.documents, options.documents, first=1),
                fleet.read("long", 6, options.pages, first=1 + options.documents),
            ]
            objects, size = fleet.stored(fleet.store)
        finally:
            desk.close()
            valkey.close()
            seaweed.close()
    table = Table("requests", "each document", "each page", "idle, in a minute", box=None)
    for kind in sorted(set(idle) | {kind for taken in rounds for kind in taken.requests}):
        documents, pages = shared_out(rounds, idle, kind)
        table.add_row(kind, f"{documents:.1f}", f"{pages:.2f}", f"{idle[kind] / _IDLE * 60:.0f}")
    Console(highlight=False).print(table)
    print(f"{objects} objects, {size / 1e6:.1f} MB in the store after {sum(taken.pages for taken in rounds) + 1} pages")


if __name__ == "__main__":
    main()
