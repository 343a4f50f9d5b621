"""Text layers: share of trusted layers in the corpus, and share of rejected damaged layers.

    python -m bench.text_layers --corpus ../shared/corpus

For the first pages of each PDF (more of the long one): whether there is a layer, whether it is trusted or why not, and the
cost. Then each trusted layer is damaged in memory, with the same page image: all letters shifted in the alphabet, or only those
of the second half; the layer of another document; moved by half a page; reduced to its first line, as on a stamped scan; random
letters; one letter in six or ten wrong, as from a poor OCR engine. For pages with a known text: CER and word F1 of the layer in
the order of MuPDF and in that of worker/engines/layout/reading_order.py. Most of these ground truths are the text of the file in
drawing order.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import random
import statistics
import string
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.accuracy import score, truths
from ocrfleet.errors import OcrfleetError
from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Kind
from worker.engines.layout import reading_order
from worker.rendering.pool import RenderPool
from worker.text_layer.trust import distrust, reading
from worker.text_layer.words import TextLayerWords

if TYPE_CHECKING:
    from worker.imaging.page_image import PageImage

FIRST = 4
#: Step between further pages of long documents.
EVERY = 9
DEADLINE = 60


@dataclass(frozen=True, slots=True)
class Page:
    document: str
    index: int
    image: PageImage
    layer: TextLayerWords
    why: str | None
    extraction_ms: float
    trust_ms: float

    @property
    def name(self) -> str:
        return f"{self.document}:{self.index + 1}"


async def pages(corpus: Path, pool: RenderPool, long_side: int) -> list[Page]:
    found = []
    with (corpus / "manifest.csv").open(newline="") as manifest:
        rows = [row for row in csv.DictReader(manifest) if row["file"].endswith(".pdf")]
    for row in rows:
        count = int(row["pages"] or 0)
        passwords = (row["password"],) if row["password"] else ()
        with (corpus / row["file"]).open("rb") as file:
            for index in sorted({*range(min(FIRST, count)), *range(FIRST, count, EVERY)}):
                where = row["file"], file.fileno(), Kind.PDF, index
                try:
                    image = await pool.render(
                        *where, Render(long_side=long_side), passwords=passwords, deadline=DEADLINE
                    )
                    begun = time.perf_counter()
                    layer = await pool.layer(*where, passwords=passwords, deadline=DEADLINE)
                except OcrfleetError as error:
                    print(f"{row['file']}: {error}")
                    break
                extracted = time.perf_counter()
                why = distrust(layer, image)
                judged = time.perf_counter()
                costs = (extracted - begun) * 1000, (judged - extracted) * 1000
                found.append(Page(Path(row["file"]).stem, index, image, layer, why, *costs))
    return found


def respelt(layer: TextLayerWords, spell: Callable[[str], str]) -> TextLayerWords:
    return replace(layer, words=tuple(replace(word, text=spell(word.text)) for word in layer.words))


def shifted(text: str, places: int) -> str:
    def shift(letter: str) -> str:
        for alphabet in (string.ascii_lowercase, string.ascii_uppercase):
            if letter in alphabet:
                return alphabet[(alphabet.index(letter) + places) % len(alphabet)]
        return chr(ord(letter) + places) if letter.isalpha() else letter

    return "".join(map(shift, text))


def moved(layer: TextLayerWords) -> TextLayerWords:
    half = layer.height_pt / 2
    words = []
    for word in layer.words:
        x0, y0, x1, y1 = word.box
        up = half if y0 < half else -half
        words.append(replace(word, box=(x0, max(0.0, y0 + up), x1, min(layer.height_pt, y1 + up))))
    return replace(layer, words=tuple(words))


def first_line(layer: TextLayerWords) -> TextLayerWords:
    """Return a full line with common words, so that the text alone does not reveal the damage."""
    line = layer.words[0].block, layer.words[0].line
    stamp = "this file was downloaded from that library and may not be sold or passed on by those who have read it"
    words = [word for word in layer.words if (word.block, word.line) == line]
    return replace(layer, words=(replace(words[0], text=stamp), *words[1:]))


def as_scan(layer: TextLayerWords) -> TextLayerWords:
    return replace(layer, pictures=((0.0, 0.0, layer.width_pt, layer.height_pt),))


def garbled(text: str, share: float, rng: random.Random) -> str:
    return "".join(rng.choice(string.ascii_lowercase) if c.isalpha() and rng.random() < share else c for c in text)


def spoilt(page: Page, others: list[Page]) -> Iterator[tuple[str, TextLayerWords]]:
    rng = random.Random(page.name)  # noqa: S311 - reproducible damage
    layer = page.layer
    for places in range(1, 26):
        wrong = respelt(layer, lambda text, places=places: shifted(text, places))  # type: ignore[misc]
        yield "letters shifted", wrong
        half = len(layer.words) // 2
        yield "letters of half of it shifted", replace(layer, words=layer.words[:half] + wrong.words[half:])
    for other in others:
        if other is not page:
            what = "another page of it" if other.document == page.document else "another document's page"
            yield what, replace(other.layer, width_pt=layer.width_pt, height_pt=layer.height_pt)
    yield "moved by half a page", moved(layer)
    yield "one line only", first_line(layer)
    yield "letters at random", respelt(layer, lambda text: garbled(text, 1.0, rng))
    for one_in in (6, 10):
        wrong = respelt(layer, lambda text, share=1 / one_in: garbled(text, share, rng))  # type: ignore[misc]
        yield f"one letter in {one_in} wrong, on a scan", as_scan(wrong)


def within(layer: TextLayerWords) -> TextLayerWords:
    """Return the layer with its boxes clipped to the page, if it comes from a larger page."""
    words = tuple(word for word in layer.words if word.box[2] <= layer.width_pt and word.box[3] <= layer.height_pt)
    return replace(layer, words=words)


def report_spoilt(good: list[Page]) -> None:
    made: Counter[str] = Counter()
    missed: dict[str, list[str]] = defaultdict(list)
    for page in good:
        for what, layer in spoilt(page, good):
            made[what] += 1
            if distrust(within(layer), page.image) is None:
                missed[what].append(page.name)
    print(f"\n{'damaged layers':<36}{'number':>6}{'missed':>8}")
    for what, count in made.items():
        print(f"{what:<36}{count:>6}{len(missed[what]):>8}  {' '.join(sorted(set(missed[what])))}")
    scans = [page.name for page in good if distrust(as_scan(page.layer), page.image) is not None]
    print(f"\ncorrect layers, treated as layers of scans: {len(good)}, not trusted: {len(scans)}  {' '.join(scans)}")


async def report_truths(corpus: Path, pool: RenderPool) -> None:
    print(f"\n{'truth':<24}{'F1':>8}{'CER':>8}{'CER in our order':>20}")
    for truth in truths(corpus):
        if truth.kind is not Kind.PDF or truth.facts:
            continue
        own, ours = [], []
        fd = os.open(truth.path, os.O_RDONLY)
        for index in range(truth.pages):
            where = truth.name, fd, truth.kind, index
            image = await pool.render(*where, Render(long_side=500), passwords=truth.passwords, deadline=DEADLINE)
            layer = await pool.layer(*where, passwords=truth.passwords, deadline=DEADLINE)
            text, lines = reading(layer, image)
            own.append(text)
            ours.append(reading_order.text_of(reading_order.order(lines)))
        os.close(fd)
        if any(own):
            mupdf, geometry = (score(truth, "\n\n".join(texts), 0) for texts in (own, ours))
            print(f"{truth.name:<24}{mupdf.f1:>8.3f}{mupdf.cer:>8.3f}{geometry.cer:>20.3f}")


async def measure(corpus: Path, long_side: int) -> None:
    pool = RenderPool(1, memory=1 << 30, max_pixels=32_000_000)
    try:
        looked_at = await pages(corpus, pool, long_side)
        with_layer = [page for page in looked_at if page.layer.words]
        good = [page for page in with_layer if page.why is None]
        print(f"page images of {long_side} pixels")
        print(f"{len(looked_at)} pages, {len(with_layer)} with a layer, {len(good)} trusted; not trusted:")
        for page in with_layer:
            if page.why is not None:
                print(f"    {page.name:<24} {page.why}")
        for what, costs in (
            ("taking the text out", [page.extraction_ms for page in with_layer]),
            ("judging it", [page.trust_ms for page in with_layer]),
            ("finding that there is none", [p.extraction_ms + p.trust_ms for p in looked_at if not p.layer.words]),
        ):
            print(f"{what}: median {statistics.median(costs):.1f} ms, at most {max(costs):.1f} ms")
        report_spoilt(good)
        await report_truths(corpus, pool)
    finally:
        pool.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--corpus", type=Path, default=here.parent / "shared" / "corpus", help="holds manifest.csv")
    parser.add_argument("--long-side", type=int, default=2500, help="long side of the page images in pixels")
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.corpus, arguments.long_side))
    return 0


if __name__ == "__main__":
    sys.exit(main())
