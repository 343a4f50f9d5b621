"""Recall on drawn pages with one to five words: share of complete pages, and pages that are done without text.

    python -m bench.sparse_pages [--pages 300] [--first 0]

Words in 20 fonts, print and typewriter, of 7 to 48 points, anywhere on an A4 page, grey or bilevel, with noise, specks and a
skew of up to 3 degrees (bench/sparse_drawn.py; the seed is the page number). Each page is rendered, read by the default
engine and judged, as in a worker. Exits with 1 if fewer than 99 % of the pages have all words, or if a page is done without text.
`make system-deps` installs the fonts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from PIL import Image

from bench.sparse_drawn import FONTS, SparsePage, sparse_page
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.documents import Kind
from ocrfleet.settings import Settings
from worker import engines
from worker.engines.base import Engine
from worker.imaging import ink
from worker.parsers import Parsed
from worker.pipeline.verdict import judge
from worker.rendering.pool import RenderPool

LEAST = 0.99


async def measure(first: int, pages: int) -> bool:
    """Print the pages with a missing word, and the totals; return whether both targets are met."""
    engine = engines.create(RAPIDOCR, Settings())
    await engine.start()
    whole = empty = 0
    seconds = 0.0
    with closing(RenderPool(1, memory=1 << 30, max_pixels=RAPIDOCR.render.max_pixels)) as pool:
        for seed in range(first, first + pages):
            page = sparse_page(seed)
            text, done, took = await read(page, engine, pool)
            words = re.findall(r"[\w.]*\w", text)
            missing = [word for word in page.words if word not in words]
            whole += not missing
            empty += done and not words
            seconds += took
            if missing:
                print(
                    f"{seed}: {' '.join(page.words)!r} was read as {text!r}, {'done' if done else 'failed'}; {page.note}"
                )
    await engine.stop()
    print(f"{whole} of {pages} pages have all their words, target {LEAST:.0%}; {empty} done without text, target 0")
    print(f"{seconds / pages:.2f} CPU seconds a page; {len(FONTS)} fonts")
    return whole >= LEAST * pages and not empty


async def read(page: SparsePage, engine: Engine, pool: RenderPool) -> tuple[str, bool, float]:
    """Return the text, whether the page is done, and the engine's CPU seconds."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        Image.fromarray(page.pixels).save(file.name, dpi=(page.dpi, page.dpi))
        fd = os.open(file.name, os.O_RDONLY)
        try:
            image = await pool.render(Path(file.name).name, fd, Kind.PNG, 0, RAPIDOCR.render, deadline=60)
        finally:
            os.close(fd)
    if ink.is_blank(image):
        return "", True, 0.0
    begun = time.process_time()
    recognition = await engine.recognise(image, RAPIDOCR)
    took = time.process_time() - begun
    rejection = judge(Parsed(text=recognition.text, blocks=recognition.blocks), recognition, image, RAPIDOCR.judgement)
    return recognition.text, rejection is None, took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first page")
    arguments = parser.parse_args()
    return 0 if asyncio.run(measure(arguments.first, arguments.pages)) else 1


if __name__ == "__main__":
    sys.exit(main())
