"""Overhead of `ocrfleet run`: CPU seconds of the whole command compared with the engine alone.

    python -m bench.overhead [--pages 60] [--rounds 3]

Both sides read the same pages alternately in one run. The bare side is one process that loads the engine, then calls it in a loop
with rendered page images; loading and rendering are not counted, and nothing is stored. The fleet side is the whole command:
interpreter starts, Valkey, intake, rendering, queue, recognition, storage, assembly, delivery. So the ratio contains all work
except recognition.

Then the fleet alone, on one processor with one worker and on two with two: pages per second of recognition, as the
summary of the command reports them (including start-up).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pymupdf
from PIL import Image, ImageFilter

OCRFLEET = str(Path(sys.executable).with_name("ocrfleet"))
#: Targets.
CPU_TARGET, SPEED_TARGET = 1.15, 1.7


def make_scans(path: Path, pages: int) -> None:
    """Write a PDF of scanned pages: prose drawn at 200 dpi, blurred, with noise, as grey JPEGs; each page differs."""
    words = [
        "the",
        "archive",
        "keeps",
        "what",
        "the",
        "river",
        "would",
        "have",
        "taken",
        "and",
        "lends",
        "it",
        "to",
        "whoever",
        "asks",
        "with",
        "clean",
        "hands",
    ]
    random = np.random.default_rng(7)
    out = pymupdf.open()
    for _ in range(pages):
        sheet = pymupdf.open()
        page = sheet.new_page(width=595, height=842)
        text = "\n".join(" ".join(random.choice(words, 11)) for _ in range(42))
        page.insert_textbox((60, 70, 540, 790), text, fontsize=11)
        drawn = page.get_pixmap(dpi=200, colorspace=pymupdf.csGRAY)
        image = Image.frombytes("L", (drawn.width, drawn.height), drawn.samples).filter(ImageFilter.GaussianBlur(0.6))
        noisy = np.clip(np.asarray(image, dtype=np.float32) + random.normal(0, 6, image.size[::-1]), 0, 255)
        jpeg = path.with_suffix(".jpg")
        Image.fromarray(noisy.astype(np.uint8)).save(jpeg, quality=80)
        out.new_page(width=595, height=842).insert_image((0, 0, 595, 842), filename=jpeg)
        jpeg.unlink()
    out.save(path)


def bare(path: Path) -> None:
    """Recognise every page in a loop and print the CPU seconds. Runs in a separate process."""
    from ocrfleet.profiles.profile import RAPIDOCR  # noqa: PLC0415
    from ocrfleet.records.documents import Kind  # noqa: PLC0415 - only in the child process
    from ocrfleet.settings import Settings  # noqa: PLC0415
    from worker import engines  # noqa: PLC0415
    from worker.rendering.pool import RenderPool  # noqa: PLC0415

    async def work() -> float:
        pool = RenderPool(1, memory=1 << 30, max_pixels=RAPIDOCR.render.max_pixels)
        images = []
        with path.open("rb") as stream:
            for number in range(len(pymupdf.open(path))):
                images.append(  # noqa: PERF401 - awaits
                    await pool.render("bench", stream.fileno(), Kind.PDF, number, RAPIDOCR.render, deadline=60)
                )
        pool.close()
        engine = engines.create(RAPIDOCR, Settings())
        await engine.start()
        await engine.recognise(images[0], RAPIDOCR)  # warm-up
        before = cpu(resource.RUSAGE_SELF)
        for image in images:
            await engine.recognise(image, RAPIDOCR)
        spent = cpu(resource.RUSAGE_SELF) - before
        await engine.stop()
        return spent

    print(json.dumps({"cpu": asyncio.run(work())}))


def cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def run_bare(path: Path) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--bare", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1])["cpu"])


def run_fleet(path: Path, *, workers: int, processors: set[int]) -> tuple[float, float]:
    """Return (CPU seconds of the command with all its processes, pages per second)."""
    with tempfile.TemporaryDirectory() as out:
        before = cpu(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [OCRFLEET, "run", str(path), "-o", out, "--workers", str(workers), "--json"],
            check=True,
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, processors),
        )
        summary = json.loads(done.stdout)
        assert summary["pages_done"] == summary["pages"]
        return cpu(resource.RUSAGE_CHILDREN) - before, summary["pages_done"] / summary["seconds"]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pages", type=int, default=60)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.bare:
        bare(chosen.bare)
        return 0
    processors = sorted(os.sched_getaffinity(0))[:2]
    ratios, speedups = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scans.pdf"
        make_scans(path, chosen.pages)
        print(f"{chosen.pages} generated 200-dpi scans, {chosen.rounds} rounds, {len(processors)} processors")
        for number in range(1, chosen.rounds + 1):
            engine = run_bare(path)
            both, fast = run_fleet(path, workers=2, processors=set(processors))
            _, slow = run_fleet(path, workers=1, processors={processors[0]})
            ratios.append(both / engine)
            speedups.append(fast / slow)
            print(
                f"round {number}: bare engine {engine:.1f} CPU s, ocrfleet run {both:.1f} CPU s, ratio {ratios[-1]:.3f}; "
                f"{slow:.3f} pages/s on one processor, {fast:.3f} on two, ratio {speedups[-1]:.2f}",
                flush=True,
            )
    ratio, speedup = statistics.median(ratios), statistics.median(speedups)
    print(
        f"median CPU ratio {ratio:.3f} (target at most {CPU_TARGET}); median speed-up {speedup:.2f} (at least {SPEED_TARGET})"
    )
    return 0 if ratio <= CPU_TARGET and speedup >= SPEED_TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
