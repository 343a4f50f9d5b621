"""Accuracy of the CPU engine against Tesseract, in one run, on pages with a known text.

    python -m bench.accuracy --corpus ../shared/corpus

Tesseract runs twice: with `eng`, as without knowledge of the pages, and with languages chosen by hand. Our engine gets no
language. Each ground truth is the text of a whole document. Scores: word F1 over the multisets of words, which ignores order; CER, the
edit distance divided by the length of the truth, which punishes a wrong reading order. Both sides are normalised: NFKC, long s
to s, white space collapsed. Seconds are those of one page in the engine, on one otherwise idle core.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import json
import os
import statistics
import sys
import time
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rapidfuzz.distance import Levenshtein

from ocrfleet.profiles.profile import RAPIDOCR, TESSERACT, Profile, Render
from ocrfleet.records.documents import Kind
from ocrfleet.settings import Settings
from worker import engines
from worker.rendering.pool import RenderPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.engines.base import Engine
    from worker.imaging.page_image import PageImage

#: Tesseract's language for each page.
CHOSEN = {
    "arabic": "ara",
    "born-multicolumn": "lat+eng",
    "born-single": "eng",
    "corrupt-repairable": "eng",
    "gt-eurotext": "eng+deu+fra+ita+spa+por",
    "gt-fraktur-1815": "Fraktur",
    # Named after its series, but set in roman type. In its truth the last lines of three paragraphs stand too early: in the page's
    # order the CER is 0.005 instead of 0.097.
    "gt-fraktur-1879": "deu",
    "gt-french-17c": "frm+fra",
    "gt-french-18c": "fra",
    "gt-gothic-16c": "frm+Fraktur",
    "gt-kant-1784": "Fraktur",
    "gt-lorem-scan": "lat",
    "handwriting": "eng",
}
PACKAGES = (
    "tesseract-ocr tesseract-ocr-ara tesseract-ocr-deu tesseract-ocr-fra tesseract-ocr-frm tesseract-ocr-ita "
    "tesseract-ocr-lat tesseract-ocr-por tesseract-ocr-script-frak tesseract-ocr-spa"
)
#: Ground truths in a script that our model lacks: they count as failures.
NO_SCRIPT = ("arabic",)
KINDS = {".pdf": Kind.PDF, ".jpg": Kind.JPEG, ".tif": Kind.TIFF, ".png": Kind.PNG}
MAX_PIXELS = 50_000_000
#: Resolution that Tesseract's documentation recommends for PDFs; raster images are passed unchanged.
TESSERACT_DPI = 300
AT_LEAST_ENG, AT_LEAST_CHOSEN = 0.8, 0.7


@dataclass(frozen=True, slots=True)
class Truth:
    name: str
    path: Path
    kind: Kind
    pages: int
    passwords: tuple[str, ...]
    #: the whole text; for handwriting, facts that must occur in the recognised text
    text: str
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    #: word F1; for facts, the share found
    f1: float
    cer: float
    seconds: float


def truths(corpus: Path) -> Iterator[Truth]:
    with (corpus / "manifest.csv").open(newline="") as manifest:
        for row in csv.DictReader(manifest):
            if not row["ground_truth"]:
                continue
            path, truth = corpus / row["file"], (corpus / row["ground_truth"]).read_text()
            is_facts = row["ground_truth_kind"] == "facts"
            yield Truth(
                name=path.stem,
                path=path,
                kind=KINDS[path.suffix],
                pages=int(row["pages"]),
                passwords=(row["password"],) if row["password"] else (),
                text="" if is_facts else truth,
                facts=tuple(json.loads(line)["text"] for line in truth.splitlines()) if is_facts else (),
            )


def normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).replace("\N{LATIN SMALL LETTER LONG S}", "s").split())


def score(truth: Truth, text: str, seconds: float) -> Score:
    read = normalised(text)
    if truth.facts:
        shares = [1 - Levenshtein.distance(fact, best_window(fact, read)) / len(fact) for fact in truth.facts]
        found = sum(share >= 0.9 for share in shares) / len(shares)
        return Score(f1=found, cer=1 - statistics.mean(shares), seconds=seconds)
    wanted = normalised(truth.text)
    a, b = Counter(wanted.split()), Counter(read.split())
    return Score(
        f1=2 * (a & b).total() / (a.total() + b.total()),
        cer=Levenshtein.distance(wanted, read) / len(wanted),
        seconds=seconds,
    )


def best_window(fact: str, read: str) -> str:
    """Return the part of the text most similar to the fact: of the same length, starting at a word."""
    starts = [0, *(index + 1 for index, character in enumerate(read) if character == " ")]
    return min((read[start : start + len(fact)] for start in starts), key=lambda part: Levenshtein.distance(fact, part))


async def render(pool: RenderPool, truth: Truth, page: int, wanted: Render) -> PageImage:
    fd = os.open(truth.path, os.O_RDONLY)
    try:
        key = hashlib.sha256(str(truth.path).encode()).hexdigest()
        return await pool.render(key, fd, truth.kind, page, wanted, passwords=truth.passwords, deadline=120)
    finally:
        os.close(fd)


async def tesseract_render(pool: RenderPool, truth: Truth, page: int) -> Render:
    """Return the input for Tesseract: a PDF page at 300 dpi, or an image unchanged."""
    if truth.kind is not Kind.PDF:
        return Render(long_side=20_000, max_pixels=MAX_PIXELS)
    small = await render(pool, truth, page, Render(long_side=64))
    return Render(long_side=round(max(small.width_pt, small.height_pt) / 72 * TESSERACT_DPI), max_pixels=MAX_PIXELS)


async def read(pool: RenderPool, engine: Engine, profile: Profile, truth: Truth) -> Score:
    texts, seconds = [], 0.0
    for page in range(truth.pages):
        wanted = profile.render
        if profile.engine == TESSERACT.engine:
            wanted = await tesseract_render(pool, truth, page)
        image = await render(pool, truth, page, wanted)
        begun = time.perf_counter()
        texts.append((await engine.recognise(image, profile)).text)
        seconds += time.perf_counter() - begun
    return score(truth, "\n\n".join(texts), seconds / truth.pages)


async def measure(corpus: Path) -> dict[str, dict[str, Score]]:
    """Return the scores of `ours`, `eng` and `chosen` for each ground truth."""
    pool = RenderPool(1, memory=2 << 30, max_pixels=MAX_PIXELS)
    ours = engines.create(RAPIDOCR, Settings())
    await ours.start()
    scores: dict[str, dict[str, Score]] = {}
    try:
        for truth in truths(corpus):
            scores[truth.name] = {"ours": await read(pool, ours, RAPIDOCR, truth)}
            for label, language in (("eng", "eng"), ("chosen", CHOSEN[truth.name])):
                profile = TESSERACT.model_copy(update={"language": language})
                tesseract = engines.create(profile, Settings())
                await tesseract.start()
                scores[truth.name][label] = await read(pool, tesseract, profile, truth)
            print(f"{truth.name}: done", file=sys.stderr)
    finally:
        await ours.stop()
        pool.close()
    return scores


def report(scores: dict[str, dict[str, Score]]) -> bool:
    """Print the table and the results; return whether every target is met."""
    print(f"{'truth':<20}{'ours':^24}{'tesseract eng':^24}{'tesseract chosen':^24}  chosen languages")
    print(f"{'':<20}" + f"{'F1':>7}{'CER':>8}{'s/page':>9}" * 3)
    facts = {name: score for name, score in scores.items() if name == "handwriting"}
    pages = {name: score for name, score in scores.items() if name not in facts}
    for name, by in pages.items():
        cells = "".join(f"{s.f1:7.3f}{s.cer:8.3f}{s.seconds:9.1f}" for s in by.values())
        lost = [label for label in ("eng", "chosen") if not at_least(by, label)]
        notes = f"  lost to {', '.join(lost)}" if lost else ""
        notes += " (the model lacks the script)" if name in NO_SCRIPT else ""
        print(f"{name:<20}{cells}  {CHOSEN[name]}{notes}")
    cells = "".join(
        f"{'':7}{statistics.median(by[label].cer for by in pages.values()):8.3f}"
        f"{statistics.median(by[label].seconds for by in pages.values()):9.1f}"
        for label in ("ours", "eng", "chosen")
    )
    print(f"{'median':<20}{cells}")
    for name, by in facts.items():
        shares = ", ".join(f"{label} {s.f1:.0%} (CER {s.cer:.3f})" for label, s in by.items())
        print(f"\n{name}, facts found (nine tenths of the letters right): {shares}")
    print(
        f"\nours: {RAPIDOCR.model}, {RAPIDOCR.revision}, no language set; long side at most {RAPIDOCR.render.long_side} px"
    )
    print(f"tesseract: PDFs at {TESSERACT_DPI} dpi, images unchanged; Debian packages: {PACKAGES}\n")
    met = True
    for label, target in (("eng", AT_LEAST_ENG), ("chosen", AT_LEAST_CHOSEN)):
        share = sum(at_least(by, label) for by in pages.values()) / len(pages)
        met &= verdict(
            share >= target, f"word F1 at least tesseract {label}'s: {share:.0%} of truths, target {target:.0%}"
        )
    mine, theirs = (statistics.median(by[label].cer for by in pages.values()) for label in ("ours", "chosen"))
    return met & verdict(mine <= theirs, f"median CER: {mine:.3f}, tesseract chosen {theirs:.3f}, target no higher")


def at_least(by: dict[str, Score], label: str) -> bool:
    """Return whether the F1 of ours is at least the other, at three digits."""
    return round(by["ours"].f1, 3) >= round(by[label].f1, 3)


def verdict(met: bool, text: str) -> bool:  # noqa: FBT001
    print(f"{'met ' if met else 'MISSED'} {text}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--corpus", type=Path, default=here.parent / "shared" / "corpus", help="holds manifest.csv")
    parser.add_argument("--json", type=Path, help="write the scores to this file as well")
    arguments = parser.parse_args()
    scores = asyncio.run(measure(arguments.corpus))
    if arguments.json:
        plain = {name: {label: asdict(s) for label, s in by.items()} for name, by in scores.items()}
        arguments.json.write_text(json.dumps(plain, indent=1))
    return 0 if report(scores) else 1


if __name__ == "__main__":
    sys.exit(main())
