"""`ocrfleet submit s3://bucket/prefix/` for many small objects in a real SeaweedFS: peak memory and keys a second, twice.

    python -m bench.submit_prefix [--objects 10000 100000]

For each number of objects, in a separate bucket, the command runs twice with its store in a local folder; in the second run no
object is new. The bench compares the peak resident memory for the two numbers: the seen-objects index may take 16 bytes per
object, or three times that while its parts are merged. SeaweedFS and the command share the cores of the machine, so the rates
include both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.peaks import Peaks
from tests.support.servers import SeaweedFS

OCRFLEET = str(Path(sys.executable).with_name("ocrfleet"))
#: Maximum growth of the peak in MiB from the first number to the second, in addition to the seen-objects index.
LIMIT = 10


def fill(seaweed: SeaweedFS, count: int) -> str:
    """Return a bucket with this number of objects, in folders of 1,000."""
    bucket = seaweed.bucket()

    def put(number: int) -> None:
        key = f"in/{number // 1000:04}/{number:06}.pdf"
        seaweed.client.put_object(Bucket=bucket, Key=key, Body=b"%PDF-1.7 " + str(number).encode())

    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(put, range(count)):
            pass
    return bucket


def submit(seaweed: SeaweedFS, bucket: str, store: Path) -> tuple[dict[str, int], float, float]:
    """Return the output of the command, its peak memory in MiB, and its seconds."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [OCRFLEET, "submit", f"s3://{bucket}/in/", "--collection", "bench", "--json"],
        env={
            **os.environ,
            **seaweed.environment,
            "OCRFLEET_S3_ENDPOINT_URL": seaweed.endpoint,
            "OCRFLEET_STORE": str(store),
        },
        stdout=subprocess.PIPE,
    )
    with Peaks({"ocrfleet submit": "submit"}, process) as peaks:
        said, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(said), peaks.highest["submit"], time.monotonic() - begun


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--objects", type=int, nargs=2, default=(10_000, 100_000))
    chosen = options.parse_args()
    peaks = []
    seaweed = SeaweedFS()
    try:
        for count in chosen.objects:
            bucket = fill(seaweed, count)
            with tempfile.TemporaryDirectory() as folder:
                for what in ("first", "second"):
                    told, memory, seconds = submit(seaweed, bucket, Path(folder) / "store")
                    new = count if what == "first" else 0
                    assert (told["seen"], told["submitted"], told["known"]) == (count, new, count - new)
                    peaks.append(memory)
                    print(
                        f"{count} objects, {what} time: {memory:.1f} MiB at the peak, {seconds:.1f} s, "
                        f"{count / seconds:.0f} keys/s",
                        flush=True,
                    )
    finally:
        seaweed.close()
    roll = 3 * 16 * (chosen.objects[1] - chosen.objects[0]) / (1 << 20)
    grown = max(peaks[2:]) - max(peaks[:2])
    print(f"the peak grows by {grown:.1f} MiB; the limit is {LIMIT} plus {roll:.1f} for the seen-objects index")
    return 0 if grown <= LIMIT + roll else 1


if __name__ == "__main__":
    sys.exit(main())
