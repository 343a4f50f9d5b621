"""Peak memory of `ocrfleet run` with all its processes, for a short and a long document. It must not grow with pages.

    python -m bench.memory [--pages 100 1000]

Resident memory is summed over the process tree as proportional set size (PSS: shared pages count once), sampled five times a
second. The pages are small generated scans, so that a thousand take minutes. Only the growth is compared, not the level.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pymupdf

OCRFLEET = str(Path(sys.executable).with_name("ocrfleet"))


def make_pages(path: Path, pages: int) -> None:
    """Write a PDF with a few large words on each page, one of them different on each."""
    out = pymupdf.open()
    for number in range(pages):
        page = out.new_page(width=200, height=280)
        page.insert_textbox((20, 60, 180, 240), f"Sheet {number} of the ferry ledger", fontsize=26)
    out.save(path)


def peak(path: Path) -> tuple[float, float]:
    """Return (peak memory in MiB, seconds) of a run."""
    begun = time.monotonic()
    highest = 0
    with tempfile.TemporaryDirectory() as out:
        process = subprocess.Popen(
            [OCRFLEET, "run", str(path), "-o", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None:
            total = 0
            with suppress(psutil.NoSuchProcess):
                for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                    with suppress(psutil.Error):
                        total += one.memory_full_info().pss
            highest = max(highest, total)
            time.sleep(0.2)
        assert process.returncode == 0
    return highest / (1 << 20), time.monotonic() - begun


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pages", type=int, nargs=2, default=(100, 1000))
    chosen = options.parse_args()
    peaks = []
    for pages in chosen.pages:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pages.pdf"
            make_pages(path, pages)
            memory, seconds = peak(path)
            peaks.append(memory)
            print(f"{pages} pages: {memory:.0f} MiB at the peak, {seconds:.0f} s", flush=True)
    print(f"ratio {peaks[1] / peaks[0]:.3f}")
    return 0 if peaks[1] <= 1.1 * peaks[0] else 1


if __name__ == "__main__":
    sys.exit(main())
