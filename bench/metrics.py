"""The cost of metrics: pages per second of a worker with a fast engine, with metrics and without.

    python -m bench.metrics [--pages 80] [--rounds 50]

Each side has its own Valkey, store (in memory if possible) and worker process during the whole run. Both read the same pages in
alternating order. The test engine takes no time, so the bench measures all other work on a page. With metrics: the worker writes
metrics to files, as under a supervisor, and the bench gathers and formats them once a second, as for a scrape by Prometheus.
Without: every call that counts, observes or sets a value does nothing.

Pages per second are measured from the first record in the store to the last. Rounds are short, so that other load on the machine
affects both sides; the quartiles of the ratios show the noise. The target applies to pages per CPU second (of the worker, its
renderers and gathering), which limit a worker with a fast engine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from ocrfleet import keys
from ocrfleet.metrics.exposition import ChildMetrics, Exposition
from ocrfleet.settings import Settings
from tests.support.servers import FAKES, Valkey
from tests.support.stage import Stage

#: Target: maximum share of the throughput that metrics may cost.
TARGET = 0.02
#: A worker with no-op metrics.
WITHOUT = """
from contextlib import nullcontext
from prometheus_client import Counter, Gauge, Histogram

class Nothing:
    inc = dec = set = observe = lambda *_: None
    time = lambda _: nullcontext()

for kind in (Counter, Gauge, Histogram):
    kind.labels = lambda *_, **__: Nothing()
    for name in ("inc", "set", "observe"):
        setattr(kind, name, lambda *_: None)

from worker.app import run
run()
"""


class Side:
    """A worker with its broker and store."""

    def __init__(self, folder: Path, stack: ExitStack, *, metered: bool) -> None:
        valkey = Valkey()
        stack.callback(valkey.close)
        self.stage = Stage(folder, valkey, engine="numbered:WideEngine")
        stack.callback(self.stage.close)
        self.exposition: Exposition | None = None
        environment = {
            **os.environ,
            "PYTHONPATH": str(FAKES),
            "OCRFLEET_PROFILE": self.stage.profile.model_dump_json(),
            "OCRFLEET_REDIS_URL": valkey.url,
            "OCRFLEET_STORE": str(self.stage.settings.store),
            "OCRFLEET_LOG_LEVEL": "warning",
        }
        plan = folder / "plan.json"
        plan.write_text('{"seconds": 0}')
        environment["OCRFLEET_TEST_PLAN"] = str(plan)
        if metered:
            children = ChildMetrics(folder / "metrics")
            environment |= children.environment("worker-0")
            self.exposition = Exposition(Settings())
            self.exposition.add(children)
        command = [sys.executable, *(["-m", "worker"] if metered else ["-c", WITHOUT])]
        self.process = subprocess.Popen(command, env=environment)
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)
        self._number = 0
        self._gathering = 0.0

    def read(self, pages: int) -> tuple[float, float]:
        """Read `pages` pages; return pages per second, and their CPU seconds."""
        numbers = [number % (1 << 16) for number in range(self._number, self._number + pages)]
        self._number += pages
        item = self.stage.register(f"book-{self._number}", numbers, pages_per_job=8)
        before, gathered = self.cpu(), self._gathering
        with self.gathered():
            (status,) = self.stage.finish(item, seconds=600)
        spent = self.cpu() - before + self._gathering - gathered
        assert status.done == pages
        folder = Path(self.stage.settings.store) / keys.pages(item.document)
        written = sorted(entry.stat().st_mtime_ns for entry in folder.iterdir())
        return (pages - 1) * 1e9 / (written[-1] - written[0]), spent

    def cpu(self) -> float:
        """Return the CPU seconds of all processes of the worker, including replaced ones."""
        worker = psutil.Process(self.process.pid)
        own = worker.cpu_times()
        spent = own.user + own.system + own.children_user + own.children_system
        for renderer in worker.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times = renderer.cpu_times()
                spent += times.user + times.system
        return spent

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Gather all metrics once a second while the block runs, on the side with metrics."""
        over = threading.Event()
        exposition = self.exposition

        def gather(exposition: Exposition) -> None:
            while not over.wait(1):
                before = time.thread_time()
                exposition.page()
                self._gathering += time.thread_time() - before

        if exposition is None:
            yield
            return
        thread = threading.Thread(target=gather, args=[exposition])
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pages", type=int, default=80)
    options.add_argument("--rounds", type=int, default=50)
    chosen = options.parse_args()
    memory = Path("/dev/shm")  # noqa: S108 - avoids the pauses of a disk
    ratios = []
    spent = dict.fromkeys(("with", "without"), 0.0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)))
        for name in ("with", "without"):
            (folder / name).mkdir()
        sides = {name: Side(folder / name, stack, metered=name == "with") for name in ("with", "without")}
        for side in sides.values():
            side.read(chosen.pages)  # warm-up
        print(f"{chosen.rounds} rounds of {chosen.pages} pages on each side")
        for number in range(1, chosen.rounds + 1):
            order = ("with", "without") if number % 2 else ("without", "with")
            found = {name: sides[name].read(chosen.pages) for name in order}
            ratios.append(found["with"][0] / found["without"][0])
            for name, (_, seconds) in found.items():
                spent[name] += seconds
        assert sides["with"].exposition is not None
        page = sides["with"].exposition.page().decode()
        counted = sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("ocrfleet_pages_total{"))
        assert counted == chosen.pages * (chosen.rounds + 1), counted
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"pages per second, with to without: median {middle:.3f}, quartiles {low:.3f} and {high:.3f}")
    pages = chosen.pages * chosen.rounds
    share = spent["without"] / spent["with"]
    print(
        f"pages per CPU second: {pages / spent['with']:.1f} with, {pages / spent['without']:.1f} without, ratio {share:.3f} "
        f"(target at least {1 - TARGET:.2f})"
    )
    return 0 if share >= 1 - TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
