"""Throughput of the fleet with a real vLLM engine compared with the engine alone, on the CPU with a tiny checkpoint.

    make bench-vllm      (or: .venv-vllm/bin/python -m bench.engine_feed [--pages 48] [--rounds 3])

Both sides read the same generated noisy 300-dpi scans, alternately in one run:
- bare engine: VllmEngine alone; it gets all rendered pages at once;
- fleet: the code of `ocrfleet run` with an embedded Valkey and one worker: intake, queue, rendering, verdicts, storage,
  assembly.

Seconds are from the first page to the last, without loading the model. On two cores, other work takes CPU time from the engine,
which a GPU would not lose. So the CPU seconds of all other work (every process except those of vLLM, minus the time of the bare
side to submit its pages), divided by the number of cores, are subtracted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pymupdf
from PIL import Image, ImageFilter

#: Targets.
SECONDS_TARGET, STARVED_TARGET = 1.05, 0.01
ENVIRONMENT = {
    "OCRFLEET_TINY": "1",
    "OCRFLEET_VLLM_ENFORCE_EAGER": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


def make_scans(path: Path, pages: int) -> None:
    """Write a PDF of grey JPEG scans of A4 pages at 300 dpi, with noise; each page differs."""
    random = np.random.default_rng(11)
    words = [
        "the",
        "archive",
        "keeps",
        "what",
        "a",
        "river",
        "would",
        "have",
        "taken",
        "and",
        "lends",
        "it",
        "to",
        "all",
    ]
    out = pymupdf.open()
    for _ in range(pages):
        sheet = pymupdf.open()
        page = sheet.new_page(width=595, height=842)
        page.insert_textbox(
            (60, 70, 540, 790), "\n".join(" ".join(random.choice(words, 11)) for _ in range(42)), fontsize=11
        )
        drawn = page.get_pixmap(dpi=300, colorspace=pymupdf.csGRAY)
        image = Image.frombytes("L", (drawn.width, drawn.height), drawn.samples).filter(ImageFilter.GaussianBlur(0.7))
        noisy = np.clip(np.asarray(image, dtype=np.float32) + random.normal(0, 6, image.size[::-1]), 0, 255)
        jpeg = path.with_suffix(".jpg")
        Image.fromarray(noisy.astype(np.uint8)).save(jpeg, quality=80)
        out.new_page(width=595, height=842).insert_image((0, 0, 595, 842), filename=jpeg)
        jpeg.unlink()
    out.save(path)


def write_profile(folder: Path, tokens: int) -> Path:
    from ocrfleet.profiles.profile import Canary  # noqa: PLC0415
    from ocrfleet.profiles.select import choose  # noqa: PLC0415
    from tests.support.vllm.checkpoint import write_checkpoint  # noqa: PLC0415 - torch: only where it is needed

    checkpoint = write_checkpoint(folder / "checkpoint", "deepseek-ocr")
    profile = choose(engine="vllm", model=str(checkpoint), mode="gundam", prompt="ocr")
    assert profile.sampling is not None
    changes = {
        "sampling": profile.sampling.model_copy(update={"max_tokens": tokens}),
        "canary": Canary(twice=True),
        "name": "bench",
    }
    path = folder / "profile.json"
    path.write_text(profile.model_copy(update=changes).model_dump_json())
    return path


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def bare(scans: Path, profile_path: Path) -> dict[str, float]:
    """Read all pages with the engine alone; return the seconds, and the CPU seconds of this process."""
    from ocrfleet.profiles.select import find  # noqa: PLC0415
    from ocrfleet.records.documents import Kind  # noqa: PLC0415
    from ocrfleet.settings import Settings  # noqa: PLC0415
    from worker import engines  # noqa: PLC0415
    from worker.rendering.pool import RenderPool  # noqa: PLC0415

    async def work() -> dict[str, float]:
        profile = find(str(profile_path))
        pool = RenderPool(1, memory=1 << 30, max_pixels=profile.render.max_pixels)
        with scans.open("rb") as stream:
            images = [
                await pool.render("bench", stream.fileno(), Kind.PDF, number, profile.render, deadline=60)
                for number in range(len(pymupdf.open(scans)))
            ]
        pool.close()
        engine = engines.create(profile, Settings())
        await engine.start()
        await engine.recognise(images[0], profile)  # warm-up
        before, begun = cpu(psutil.Process()), time.perf_counter()
        await asyncio.gather(*(engine.recognise(image, profile) for image in images))
        spent = {"seconds": time.perf_counter() - begun, "cpu": cpu(psutil.Process()) - before}
        await engine.stop()
        return spent

    return asyncio.run(work())


def fleet(scans: Path, profile_path: Path, out: Path) -> dict[str, float]:
    """Read all pages with the fleet; return the seconds, the share of idle slots, and CPU seconds of all but vLLM's processes."""
    from ocrfleet.profiles.select import find  # noqa: PLC0415
    from ocrfleet.settings import Settings  # noqa: PLC0415
    from producer.local.progress import Tally  # noqa: PLC0415
    from producer.local.run import Order, Run  # noqa: PLC0415

    order = Order(inputs=(scans,), output=out, profile=find(str(profile_path)), workers=1, measured=True)
    (order.state / "logs").mkdir(parents=True)
    log = order.state / "logs" / "worker-1.log"
    at_start = at_end = 0.0

    def sample() -> float:
        me = psutil.Process()
        ours = [me, *(child for child in me.children(recursive=True) if not child.name().startswith("VLLM::"))]
        return sum(cpu(process) for process in ours)

    def watch(_: Tally) -> None:
        nonlocal at_start, at_end
        if not at_start and log.exists() and "worker.ready" in log.read_text():
            at_start = sample()
        at_end = sample()

    report = Run(order, Settings()).run(watch)
    (state,) = report.workers
    assert report.succeeded
    assert state.pages == report.tally.done
    return {
        "seconds": state.busy_seconds,
        "starved": state.starved_seconds / state.busy_seconds,
        "cpu": at_end - at_start,
        "tokens": state.tokens / state.pages,
    }


def side(name: str, *arguments: Path) -> dict[str, float]:
    """Run one side in a separate process."""
    done = subprocess.run(
        [sys.executable, __file__, f"--{name}", *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pages", type=int, default=48)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument(
        "--tokens", type=int, default=64, help="tokens per page: a model with random weights does not stop by itself"
    )
    options.add_argument("--bare", type=Path, nargs=2, help=argparse.SUPPRESS)
    options.add_argument("--fleet", type=Path, nargs=3, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.bare:
        print(json.dumps(bare(*chosen.bare)))
        return 0
    if chosen.fleet:
        print(json.dumps(fleet(*chosen.fleet)))
        return 0
    cores = len(os.sched_getaffinity(0))
    ratios, starved = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_scans(folder / "scans.pdf", chosen.pages)
        profile = write_profile(folder, chosen.tokens)
        print(f"{chosen.pages} generated 300-dpi scans, gundam mode, {chosen.tokens} tokens per page, {cores} cores")
        for number in range(1, chosen.rounds + 1):
            alone = side("bare", folder / "scans.pdf", profile)
            whole = side("fleet", folder / "scans.pdf", profile, folder / f"out{number}")
            beside = max(0.0, whole["cpu"] - alone["cpu"])
            ratios.append((whole["seconds"] - beside / cores) / alone["seconds"])
            starved.append(whole["starved"])
            print(
                f"round {number}: bare engine {alone['seconds']:.1f} s ({chosen.pages / alone['seconds']:.2f} pages/s), "
                f"fleet {whole['seconds']:.1f} s ({chosen.pages / whole['seconds']:.2f} pages/s), other work "
                f"{beside:.1f} CPU s; ratio {ratios[-1]:.3f}; idle slots {starved[-1]:.2%}",
                flush=True,
            )
    ratio, share = statistics.median(ratios), statistics.median(starved)
    print(
        f"median ratio {ratio:.3f} (target at most {SECONDS_TARGET}); median share of idle slots {share:.2%} "
        f"(at most {STARVED_TARGET:.0%})"
    )
    return 0 if ratio <= SECONDS_TARGET and share <= STARVED_TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
