"""Assembly in each output format: pages a second on one core, and peak memory for a short and a long document.

    python -m bench.assembly [--pages 50 5000] [--formats md,json,alto html …]

Each run is a separate process that assembles a document from stored pages: 40 lines with boxes and confidences, 320 words,
ten blocks with a table, and a figure on every fifth page; the original is a PDF of as many pages. The time
includes reading the pages, but not the start of Python. Each argument of --formats is one run; every run writes the default formats.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import PIL.Image
import pymupdf
from rich.console import Console
from rich.table import Table

from ocrfleet import keys
from ocrfleet.formats import DEFAULT_FORMATS, FORMATS, parse_formats, stored_formats
from ocrfleet.records.documents import Kind, Manifest, Source
from ocrfleet.records.pages import Block, Line, PageResult, PageStatus, Role, Word
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import Submission, SubmissionOptions
from ocrfleet.settings import Settings
from ocrfleet.sources.sources import Sources, sha256_of, uri_of
from ocrfleet.storage.store import FolderStore
from worker.assemble import assemble
from worker.formats.materials import Materials

_DOCUMENT = "0123456789abcdef" * 2
_FIGURE = "000001-01-0123456789ab.jpg"
_WIDTH, _HEIGHT = 1700, 2200
_LINES, _WORDS = 40, 8
_TABLE = "<table>" + "<tr><td>Herring</td><td>12</td><td>4 s.</td></tr>" * 6 + "</table>"


class _NoLedger:
    def forget(self, document: str, generation: int) -> None: ...


def page_result(number: int, dice: random.Random) -> PageResult:
    """Return the record of a page as the default engine stores it; each page has different words."""
    lines, words, blocks = [], [], []
    for index in range(_LINES):
        y = 120.0 + 50 * index
        texts = ["".join(dice.choices("abcdefghilmnoprstu", k=dice.randint(2, 9))) for _ in range(_WORDS)]
        lines.append(Line(text=" ".join(texts), box=(100.0, y, 1600.0, y + 36), confidence=0.97))
        words += [
            Word(text, (100.0 + 187 * place, y, 270.0 + 187 * place, y + 36), 0.97, index, index // 5)
            for place, text in enumerate(texts)
        ]
    for first in range(0, _LINES, 5):
        part = lines[first : first + 5]
        box = (100.0, part[0].box[1], 1600.0, part[-1].box[3])
        role = Role.HEADING if first == 0 else Role.TEXT
        text = "\n".join(line.text for line in part)
        blocks.append(Block(label="text", role=role, boxes=(box,), markdown=text, made=True))
    blocks.append(Block(label="table", role=Role.TABLE, boxes=((100, 2100, 1600, 2140),), markdown=_TABLE))
    figure = _FIGURE if number % 5 == 0 else None
    blocks.append(Block(label="image", role=Role.FIGURE, boxes=((100, 2150, 1600, 2190),), figure=figure))
    return PageResult(
        page=number,
        status=PageStatus.DONE,
        profile="rapidocr",
        engine="rapidocr",
        engine_version="3.10.0",
        model="m",
        revision="r",
        width_px=_WIDTH,
        height_px=_HEIGHT,
        width_pt=_WIDTH * 72 / 200,
        height_pt=_HEIGHT * 72 / 200,
        text="\n".join(line.text for line in lines),
        lines=tuple(lines),
        blocks=tuple(blocks),
        words=tuple(words),
    )


def prepare(folder: Path, pages: int) -> None:
    """Write a store with a document of which all pages are read."""
    store = FolderStore(folder / "store")
    pdf = folder / "original.pdf"
    out = pymupdf.open()
    for _ in range(pages):
        out.new_page(width=612, height=792)
    out.save(pdf)
    facts = pdf.stat()
    with pdf.open("rb") as stream:
        sha256 = sha256_of(stream.fileno())
    source = Source(
        uri=uri_of(pdf), size=facts.st_size, mtime_ns=facts.st_mtime_ns, sha256=sha256, kind=Kind.PDF, pages=pages
    )
    manifest = Manifest(
        document=_DOCUMENT,
        created="20261122T051000.123456Z",
        profile="rapidocr",
        profile_digest="ab" * 32,
        sources=(source,),
        selection=((1, pages),),
    )
    store.put(keys.manifest(_DOCUMENT), manifest.to_bytes())
    picture = io.BytesIO()
    PIL.Image.effect_noise((400, 300), 40).convert("RGB").save(picture, "JPEG", quality=90)
    store.put(keys.figure(_DOCUMENT, _FIGURE), picture.getvalue())
    dice = random.Random(1)  # noqa: S311 - the same words each time
    place = folder / "store" / keys.pages(_DOCUMENT)
    place.mkdir(parents=True)
    for number in range(1, pages + 1):  # without the store, which would sync to disk for each object
        (folder / "store" / keys.page_done(_DOCUMENT, number)).write_bytes(page_result(number, dice).to_bytes())


def measure(folder: Path, formats: str) -> dict[str, Any]:
    """Assemble the prepared document, once, in this process."""
    store = FolderStore(folder / "store")
    options = SubmissionOptions(
        profile_digest="ab" * 32, queue=Priority.BULK, collection="c", formats=stored_formats(parse_formats(formats))
    )
    submission = Submission(
        name="a", document=_DOCUMENT, uri="file:///a", submitted="20261122T051000.123456Z", terms=options
    )
    for key in list(store.list(keys.wanted_by(_DOCUMENT))):
        store.delete(key)
    store.put(keys.wanted(_DOCUMENT, submission.digest), submission.to_bytes())
    store.delete(keys.status(_DOCUMENT, 1))
    settings = Settings(store=str(folder / "store"))
    materials = Materials.of(settings, store, Sources(settings, store))
    begun, before = time.perf_counter(), time.process_time()
    status = assemble(materials, cast("Any", _NoLedger()), _DOCUMENT, 1)
    assert status is not None
    assert not status.refused, status.refused
    return {
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - before,
        "peak": peak(),
        "sizes": {name: output.size for name, output in status.outputs.items()},
    }


def peak() -> float:
    """Return the peak memory of this process in MiB; getrusage would include the parent process before exec."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pages", type=int, nargs=2, default=(50, 5000))
    options.add_argument(
        "--formats",
        nargs="+",
        default=["md,json", *(f"md,json,{name}" for name in FORMATS if name not in DEFAULT_FORMATS)],
    )
    options.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.measure is not None:
        sys.stdout.write(json.dumps(measure(chosen.measure, chosen.formats[0])))
        return 0
    table = Table("formats", "pages/s", "CPU ms a page", "peak MiB, few", "many", "growth", "bytes a page")
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        for folder, pages in zip((few, many), chosen.pages, strict=True):
            prepare(Path(folder), pages)
        for formats in dict.fromkeys(chosen.formats):
            runs = []
            for folder in (few, many):
                command = [sys.executable, "-m", "bench.assembly", "--measure", folder, "--formats", formats]
                runs.append(
                    json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
                )  # after the log
            pages, (short, long) = chosen.pages[1], runs
            sizes = sum(size for name, size in long["sizes"].items() if name in formats.split(","))
            table.add_row(
                formats,
                f"{pages / long['seconds']:.0f}",
                f"{1000 * long['cpu'] / pages:.2f}",
                f"{short['peak']:.0f}",
                f"{long['peak']:.0f}",
                f"{long['peak'] - short['peak']:+.0f}",
                f"{sizes / pages:,.0f}",
            )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
