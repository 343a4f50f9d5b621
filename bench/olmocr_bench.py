"""The sample of olmOCR-bench: 21 PDFs and 88 checks of text, order, tables, running heads and page numbers; formulas left out.

    git clone https://github.com/allenai/olmocr ../olmocr
    pip install fuzzysearch rapidfuzz beautifulsoup4 tqdm
    python bench/olmocr_bench.py --checkout ../olmocr
    python bench/olmocr_bench.py --checkout ../olmocr --run "--text-layer prefer"

`ocrfleet run` reads the PDFs; the checks are those of the checkout (olmocr/bench/tests.py). Comments are removed from the Markdown
first. The table also has the score of olmOCR's own output, which is in the checkout. Without a checkout, or without the libraries
of the checks, the bench prints a message and exits with code 0.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any

OCRFLEET = str(Path(sys.executable).with_name("ocrfleet"))
SAMPLE = Path("olmocr/bench/sample_data")
FILES = "dataset.jsonl", "blanks.jsonl"
LEAST = {"all": 60, "table": 14, "order": 12}
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_PAGE = re.compile(r"<!-- page (\d+)[^>]*-->")


def checks(checkout: Path) -> list[Any]:
    """Return the checks of the sample, without those of formulas, which need a browser. Raises ImportError for a missing library."""
    sys.path.insert(0, str(checkout))
    render: Any = types.ModuleType("olmocr.bench.katex.render")
    render.compare_rendered_equations = render.render_equation = None
    sys.modules["olmocr.bench.katex.render"] = render
    tests = importlib.import_module("olmocr.bench.tests")
    lines = [line for name in FILES for line in (checkout / SAMPLE / name).read_text().splitlines() if line.strip()]
    return [tests.load_single_test(line) for line in lines if '"type": "math"' not in line]


def pages(markdown: str) -> dict[int, str]:
    """Return the text of each page of a document's Markdown, without comments."""
    _, *parts = _PAGE.split(markdown)
    return {int(number): _COMMENT.sub("", text) for number, text in zip(parts[::2], parts[1::2], strict=True)}


def told(name: str, found: list[tuple[Any, bool, str]]) -> None:
    passed, total = (
        Counter(check.type for check, good, _ in found if good),
        Counter(check.type for check, _, _ in found),
    )
    kinds = "  ".join(f"{kind} {passed[kind]}/{total[kind]}" for kind in sorted(total))
    print(f"{name:8} {passed.total()}/{total.total()}  {kinds}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help="a checkout of allenai/olmocr")
    parser.add_argument("--run", default="", help="further options of `ocrfleet run`, in one word")
    parser.add_argument("--output", type=Path, help="folder of the texts; an existing run is used again")
    parser.add_argument("--failures", action="store_true", help="name the checks that fail, and why")
    options = parser.parse_args()
    sample = options.checkout / SAMPLE
    if not sample.is_dir():
        print(f"skipped: {sample} is not there; clone https://github.com/allenai/olmocr")
        return 0
    try:
        wanted = checks(options.checkout)
    except ImportError as error:
        print(f"skipped: the checks need {error.name}; pip install fuzzysearch rapidfuzz beautifulsoup4 tqdm")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        out = options.output or Path(scratch)
        begun = time.perf_counter()
        command = [OCRFLEET, "run", str(sample / "pdfs"), "--output", str(out)]
        subprocess.run([*command, *shlex.split(options.run)], check=False, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
        texts = [path for path in out.rglob("*.pdf.md") if ".ocrfleet" not in path.parts]
        read = {path.relative_to(out).with_suffix("").as_posix(): path.read_text() for path in texts}
    ours, theirs = [], []
    for check in wanted:
        name = next((name for name in read if name.endswith(check.pdf)), None)
        text = pages(read[name]).get(check.page, "") if name else ""
        ours.append((check, *check.run(text)))
        own = sample / "olmocr_pipeline" / f"{check.pdf.removesuffix('.pdf')}_pg{check.page}_repeat1.md"
        theirs.append((check, *check.run(own.read_text() if own.is_file() else "")))
    told("olmOCR", theirs)
    told("ours", ours)
    print(f"{seconds:.0f} s for {sum(len(pages(text)) for text in read.values())} pages")
    if options.failures:
        for check, good, why in ours:
            if not good:
                print(f"  {check.id} ({check.type}): {why}")
    passed = Counter(kind for check, good, _ in ours if good for kind in ("all", check.type))
    missed = [f"{kind} {passed[kind]} < {least}" for kind, least in LEAST.items() if passed[kind] < least]
    print(f"FAILED: {', '.join(missed)}" if missed else "ok")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
