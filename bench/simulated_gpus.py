"""Number of A100s that one machine keeps busy: the whole fleet with a simulated engine.

    python -m bench.simulated_gpus [--gpus 8,16,20,24,28] [--pages 160] [--workers 2]

Everything except the engine is real: intake, embedded Valkey, Celery, local store, assembly, delivery. The input is generated noisy
grey scans of A4 pages at 300 dpi in PDFs of 50 pages, rendered at 1,684 pixels. The engine (bench/simulated_engine.py) generates
2,500 tokens per second and GPU, 1,080 per page: 2.31 pages per second. `--workers` worker processes share the GPUs; on a machine
with GPUs there is one process per GPU. The default is two, because Python in one process uses one core.

The bench compares the tokens of the engine in the steady state with those of an engine that is always full. The steady state starts
when twice as many pages have ended as the engine has slots, and ends when the last pages are in the engine. `filled` is the mean
share of occupied slots. `starved` is the fleet's metric: the share of seconds with a free slot while pages were being prepared.
CPU is that of all fleet processes in the same time, by role; `others` is the CPU use of the rest of the machine.

The result is the largest number of GPUs that reach 99 % of their speed. Exits with 1 if it is below 16.
"""

from __future__ import annotations

import argparse
import bisect
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pymupdf
from PIL import Image

from bench.rendering import PAGE, encoded, scan
from bench.simulated_engine import GPUS, JOURNALS, PAGES_PER_SECOND, SLOTS, TOKENS_PER_SECOND
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import TransientError
from ocrfleet.profiles.profile import Canary
from ocrfleet.profiles.select import find
from ocrfleet.settings import Settings
from producer.delivery.delivered_files import STATE_FOLDER
from producer.local.run import Order, Run

PROFILE = find("deepseek-ocr").model_copy(
    update={"name": "simulated", "engine": "simulated_engine:SimulatedA100", "canary": Canary()}
)
PAGES_PER_DOCUMENT = 50
#: Targets: number of GPUs, and share of their speed.
TARGET, FULL = 16, 0.99
#: Limits of the steady state, as multiples of the pages in the engine: after the start, until the pages have different progress;
#: and before the end, when no more pages wait.
RAMP, TAIL = 2.0, 1.3
ROLES = ("render", "worker", "producer", "valkey")


def write_scans(folder: Path, documents: int) -> None:
    """Write PDFs of 50 scans: the same scans in another order, each shifted by some pixels, so that no two are identical."""
    noise = np.random.default_rng(7)
    shuffle = random.Random(7)  # noqa: S311
    sheets = [np.asarray(scan(noise)) for _ in range(5)]
    shifted = [np.roll(sheets[number % 5], (number, 3 * number), (0, 1)) for number in range(PAGES_PER_DOCUMENT)]
    jpegs = [encoded(Image.fromarray(sheet), "JPEG", quality=80) for sheet in shifted]
    for number in range(documents):
        shuffle.shuffle(jpegs)
        with pymupdf.open() as document:
            for jpeg in jpegs:
                page = document.new_page(width=PAGE[0], height=PAGE[1])
                page.insert_image(page.rect, stream=jpeg)
            document.save(folder / f"{number:03d}.pdf")


def drive(inputs: Sequence[Path], output: Path, workers: int) -> None:
    """Run `ocrfleet run` in a separate process."""
    order = Order(inputs=tuple(inputs), output=output, profile=PROFILE, workers=workers)
    order.state.mkdir(parents=True)
    report = Run(order, Settings()).run(lambda _: None)
    sys.exit(0 if report.succeeded else f"not all pages were read: {report.tally}")


@dataclass
class Series:
    """Counters over time."""

    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, when: float, value: float) -> None:
        self.times.append(when)
        self.values.append(value)

    def at(self, when: float) -> float:
        return float(np.interp(when, self.times, self.values))

    def grown(self, begin: float, end: float) -> float:
        return self.at(end) - self.at(begin)


@dataclass
class Watch:
    """Samples the processes of a run twice a second."""

    cpu: dict[str, Series] = field(default_factory=lambda: {role: Series() for role in ROLES})
    machine: Series = field(default_factory=Series)
    starved: Series = field(default_factory=Series)
    memory: float = 0.0
    _ledger: Ledger | None = None

    def look(self, process: psutil.Process, output: Path) -> None:
        now = time.monotonic()
        spent, memory = dict.fromkeys(ROLES, 0.0), 0
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                role, times = _role(one.cmdline()), one.cpu_times()
                spent[role] += times.user + times.system
                # Include ended children: renderers are replaced from time to time.
                spent["render"] += times.children_user + times.children_system
                memory += one.memory_info().rss - one.memory_info().shared
        for role, seconds in spent.items():
            self.cpu[role].add(now, seconds)
        self.memory = max(self.memory, memory)
        all_of_it = psutil.cpu_times()
        self.machine.add(
            now, sum(all_of_it) - all_of_it.idle - all_of_it.iowait - all_of_it.guest - all_of_it.guest_nice
        )
        with suppress(OSError, TransientError):
            if self._ledger is None:
                runtime = (output / STATE_FOLDER / "runtime").read_text()
                self._ledger = Ledger(f"unix://{runtime}/valkey.sock")
            workers = self._ledger.workers()
            if workers:
                self.starved.add(now, sum(state.starved_seconds for state in workers) / len(workers))


def _role(command: Sequence[str]) -> str:
    text = " ".join(command)
    if "ocrfleet.sandbox.fork_server_main" in text:
        return "render"
    if "valkey" in text:
        return "valkey"
    return "worker" if "-m worker" in text else "producer"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Results of one run. Shares are 0 to 1; CPU in ms per page."""

    gpus: int
    seconds: float
    pages_per_second: float
    speed: float
    filled: float
    starved: float
    cpu: dict[str, float]
    #: cores used by the rest of the machine
    others: float
    gigabytes: float

    def __str__(self) -> str:
        wanted = self.gpus * PAGES_PER_SECOND
        roles = "".join(f"{self.cpu[role]:9.1f}" for role in ROLES)
        return (
            f"{self.gpus:4}{wanted:8.1f}{self.pages_per_second:9.2f}{self.speed:8.1%}{self.filled:8.1%}{self.starved:8.1%}"
            f"{sum(self.cpu.values()):8.1f}{roles}{self.others:8.2f}{self.gigabytes:6.1f}{self.seconds:8.0f}"
        )


HEADER = (
    f"{'GPUs':>4}{'wanted':>8}{'pages/s':>9}{'speed':>8}{'filled':>8}{'starved':>8}{'CPU ms':>8}"
    + "".join(f"{role:>9}" for role in ROLES)
    + f"{'others':>8}{'GB':>6}{'seconds':>8}"
)


def measure(gpus: int, *, scans: Path, documents: int, workers: int, renderers: int) -> Measured:
    """Run the fleet with these documents and this number of GPUs."""
    with tempfile.TemporaryDirectory(prefix="simulated-gpus-") as folder:
        journals, output = Path(folder, "journals"), Path(folder, "out")
        journals.mkdir()
        each = gpus / workers
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            GPUS: str(each),
            JOURNALS: str(journals),
            "OCRFLEET_RENDERERS": str(renderers),
            # Limit of a worker with one GPU, times the number of GPUs that this worker simulates.
            "OCRFLEET_PIXELS_IN_FLIGHT": str(round(600 * max(1, each))),
            "OCRFLEET_LOG_LEVEL": "warning",
        }
        inputs = [str(scans / f"{number:03d}.pdf") for number in range(documents)]
        command = [sys.executable, __file__, "--drive", str(output), "--workers", str(workers), *inputs]
        watch = Watch()
        with subprocess.Popen(command, env=environment) as process:
            whole = psutil.Process(process.pid)
            while process.poll() is None:
                watch.look(whole, output)
                time.sleep(0.5)
        if process.returncode:
            sys.exit(f"the run failed with {process.returncode}")
        lines = [np.loadtxt(path, ndmin=2).T for path in sorted(journals.iterdir())]
    return _evaluate(gpus, documents * PAGES_PER_DOCUMENT, watch, lines)


def _evaluate(gpus: int, total: int, watch: Watch, journals: Sequence[np.ndarray]) -> Measured:
    def together(column: int) -> Callable[[float], float]:
        return lambda when: float(sum(np.interp(when, lines[0], lines[column]) for lines in journals))

    pages, tokens, filled = together(1), together(2), together(3)
    slots = SLOTS * gpus
    times = sorted(np.concatenate([lines[0] for lines in journals]))
    begin = times[bisect.bisect_left(times, RAMP * slots, key=pages)]
    end = times[bisect.bisect_left(times, total - TAIL * slots, key=pages)]
    seconds = end - begin
    if seconds <= 0:
        sys.exit(f"{total} pages are too few for {gpus} GPUs: the run has no steady state")
    read = pages(end) - pages(begin)
    cpu = {role: series.grown(begin, end) for role, series in watch.cpu.items()}
    return Measured(
        gpus=gpus,
        seconds=seconds,
        pages_per_second=read / seconds,
        speed=(tokens(end) - tokens(begin)) / (TOKENS_PER_SECOND * gpus * seconds),
        filled=(filled(end) - filled(begin)) / (slots * seconds),
        starved=watch.starved.grown(begin, end) / seconds,
        cpu={role: 1000 * spent / read for role, spent in cpu.items()},
        others=max(0.0, (watch.machine.grown(begin, end) - sum(cpu.values())) / seconds),
        gigabytes=watch.memory / 1e9,
    )


def limit(rows: Sequence[Measured], processors: int) -> str:
    """Return a description of the CPU use at the highest throughput."""
    fastest = max(rows, key=lambda row: row.pages_per_second)
    used = fastest.pages_per_second * sum(fastest.cpu.values()) / 1000
    parts = ", ".join(f"{role} {fastest.cpu[role] / sum(fastest.cpu.values()):.0%}" for role in ROLES)
    return (
        f"highest throughput {fastest.pages_per_second:.1f} pages per second, with {used:.2f} of {processors} cores for the fleet "
        f"and {fastest.others:.2f} for other processes; shares of the fleet: {parts}"
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--gpus", default="8,16,20,24,28", help="numbers of GPUs to try, with commas")
    options.add_argument("--pages", type=int, default=160, help="pages for each GPU")
    options.add_argument("--workers", type=int, default=2, help="worker processes that share the GPUs")
    options.add_argument("--renderers", type=int, default=2, help="renderers of each worker")
    options.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    options.add_argument("inputs", nargs="*", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.drive:
        drive(chosen.inputs, chosen.drive, chosen.workers)
    counts = [int(count) for count in chosen.gpus.split(",")]
    documents = {gpus: -(-gpus * chosen.pages // PAGES_PER_DOCUMENT) for gpus in counts}
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="simulated-gpus-scans-") as folder:
        write_scans(Path(folder), max(documents.values()))
        processors = len(os.sched_getaffinity(0))
        print(
            f"{processors} processors, {chosen.workers} workers with {chosen.renderers} renderers each; CPU ms per page"
        )
        print(HEADER, flush=True)
        for gpus in counts:
            rows.append(
                measure(
                    gpus,
                    scans=Path(folder),
                    documents=documents[gpus],
                    workers=chosen.workers,
                    renderers=chosen.renderers,
                )
            )
            print(rows[-1], flush=True)
    fed = max((row.gpus for row in rows if row.speed >= FULL), default=0)
    print(limit(rows, processors))
    print(
        f"this machine keeps {fed} GPUs of {PAGES_PER_SECOND:.2f} pages per second busy at {FULL:.0%} (target: {TARGET})"
    )
    return 0 if fed >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
