"""Cost of the sandbox: milliseconds of CPU per document and per page, confined and not.

    python -m bench.sandbox [--documents 60] [--rounds 3]

- spawn: a new interpreter that imports the decoders, as each sandbox was before the fork server
- fork: a process for each document from the fork server, confined, that opens a PDF of one page and counts its pages
- same: the same request to a process that has the document open
- page: a page of the PDF rendered at 1684 px in a process that has it open, with the confinement and without it

All processes are counted: this one, the fork server and its children.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest import mock

import pymupdf

from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Kind
from ocrfleet.sandbox import fork_server
from ocrfleet.sandbox.sandbox import Sandbox

MEMORY, SHARED = 512 << 20, 32 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


def make(path: Path) -> None:
    with pymupdf.open() as document:
        page = document.new_page(width=595, height=842)
        page.insert_textbox((60, 70, 540, 790), "the archive keeps what a river would have taken " * 60, fontsize=11)
        document.save(path)


def spent(sandbox: Sandbox) -> float:
    """CPU milliseconds so far of this process, the fork server, its ended children, and the living child."""
    process = fork_server.fork_server("documents")._process  # noqa: SLF001 - its process id is not public
    total = time.process_time() * 1e3
    if process is not None:
        fields = Path(f"/proc/{process.pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
        total += sum(map(int, fields[13:15])) / _TICKS * 1e3
        total += int(Path(f"/proc/{process.pid}/schedstat").read_text("ascii").split()[0]) / 1e6
    if sandbox.pid:
        total += int(Path(f"/proc/{sandbox.pid}/schedstat").read_text("ascii").split()[0]) / 1e6
    return total


def cost(sandbox: Sandbox, work: Callable[[int], object], count: int) -> tuple[float, float]:
    """Return CPU and wall milliseconds of one of `count` calls."""
    before, begun = spent(sandbox), time.perf_counter()
    for number in range(count):
        work(number)
    return (spent(sandbox) - before) / count, (time.perf_counter() - begun) * 1e3 / count


@contextmanager
def unconfined() -> Iterator[None]:
    """Let children of new fork servers skip Landlock and seccomp."""
    program = (
        "import sys; from ocrfleet.sandbox import child, fork_server_main; child.confine = lambda: None; "
        "sys.argv = ['', sys.argv[1]]; fork_server_main.main()"
    )
    start = subprocess.Popen

    def popen(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return start([sys.executable, "-P", "-s", "-B", "-c", program, command[-1]], **options)  # type: ignore[call-overload,no-any-return]

    fork_server.fork_server("documents").close()
    with mock.patch("ocrfleet.sandbox.fork_server.subprocess.Popen", popen):
        yield
    fork_server.fork_server("documents").close()


def measure(path: Path, documents: int) -> dict[str, tuple[float, float]]:
    measured = {}
    with path.open("rb") as file, closing(Sandbox("producer.intake.probe", memory=MEMORY, recycle=1 << 30)) as probe:

        def count(number: int, prefix: str = "") -> None:
            probe.call({"kind": Kind.PDF}, fd=file.fileno(), deadline=60, document=f"{prefix}{number}")

        count(0, "warm")
        measured["fork"] = cost(probe, count, documents)
        measured["same"] = cost(probe, lambda _: count(0, "same"), documents)
    with (
        path.open("rb") as file,
        closing(Sandbox("worker.rendering.rasterise", memory=MEMORY, shared=SHARED, recycle=1 << 30)) as renderer,
    ):
        request = {
            "want": "pixels",
            "kind": Kind.PDF,
            "page": 0,
            "render": Render(long_side=1684).model_dump(mode="json"),
        }

        def draw(_: int) -> None:
            renderer.call(request, fd=file.fileno(), deadline=60)

        draw(0)
        measured["page"] = cost(renderer, draw, documents)
    return measured


def spawn() -> tuple[float, float]:
    code = "import producer.intake.probe as p; p.handler()"
    before, begun = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-P", "-s", "-B", "-c", code], check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu * 1e3, (time.perf_counter() - begun) * 1e3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--documents", type=int, default=60)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.pdf"
        make(path)
        confined, free, spawned = [], [], []
        for _ in range(chosen.rounds):
            spawned.append(spawn())
            confined.append(measure(path, chosen.documents))
            with unconfined():
                free.append(measure(path, chosen.documents))
    print(f"{'':8}{'CPU ms':>10}{'wall ms':>10}{'CPU ms, not confined':>24}{'ratio':>8}")
    print(f"{'spawn':8}" + "".join(f"{statistics.median(column):10.1f}" for column in zip(*spawned, strict=True)))
    for name in ("fork", "same", "page"):
        cpu, wall = (statistics.median(one[name][at] for one in confined) for at in (0, 1))
        other = statistics.median(one[name][0] for one in free)
        print(f"{name:8}{cpu:10.2f}{wall:10.2f}{other:24.2f}{cpu / other:8.3f}")


if __name__ == "__main__":
    main()
