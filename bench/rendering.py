"""CPU milliseconds per page from the file to the pixels of the engine, by kind of page.

    python -m bench.rendering [--pages 6] [--rounds 4] [--long-side 1684]

Compares in one run, one after the other, on the same pages (generated, noisy, A4 at 300 dpi):
- png: pixmap of MuPDF, encoded as PNG and decoded by Pillow, as in the published scripts of DeepSeek
- mupdf: pixmap of MuPDF in RGB
- decode: the embedded JPEG decoded at a reduced size, resized and converted to RGB: the known minimum
- ours: RenderPool to PageImage and `is_blank`: sandbox, transfer, copies, blank check; this process and its child together

The columns before "ours" include no process boundary, copy or check. The ratio is png to ours. The image cache of MuPDF is
emptied before each page. The last rows are pages per second with one renderer and with two.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pymupdf
from PIL import Image, ImageFilter

from ocrfleet.profiles.profile import Render
from ocrfleet.records.documents import Kind
from worker.imaging.ink import is_blank
from worker.rendering.pool import RenderPool

#: A4, in points and at 300 dpi.
PAGE = (595.2, 841.92)
PIXELS = (2480, 3508)
WORDS = ("the", "archive", "keeps", "what", "a", "river", "would", "have", "taken", "and", "lends", "it", "to", "all")
MEMORY = 1 << 30
SIDES = ("png", "mupdf", "decode", "ours")


def text_page(document: Any, random: np.random.Generator) -> Any:
    page = document.new_page(width=PAGE[0], height=PAGE[1])
    page.insert_textbox(
        (60, 70, 540, 790), "\n".join(" ".join(random.choice(WORDS, 11)) for _ in range(42)), fontsize=11
    )
    return page


def scan(random: np.random.Generator) -> Image.Image:
    """A simulated grey scan of a page of prose."""
    with pymupdf.open() as document:
        page = text_page(document, random)
        matrix = pymupdf.Matrix(PIXELS[0] / page.rect.width, PIXELS[1] / page.rect.height)
        drawn = page.get_pixmap(matrix=matrix, colorspace=pymupdf.csGRAY)
        image = Image.frombytes("L", (drawn.width, drawn.height), drawn.samples)
    soft = np.asarray(image.resize(PIXELS).filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32)
    noisy = 0.92 * soft + 6 + random.normal(0, 6, soft.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def yellowed(image: Image.Image) -> Image.Image:
    return Image.merge("RGB", [image.point([round(grey * tint) for grey in range(256)]) for tint in (1, 0.97, 0.9)])


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, dpi=(300, 300), **options)
    return buffer.getvalue()


class Pages:
    """Pages of one kind: one PDF, or one file per page."""

    def __init__(self, name: str, paths: list[Path], kind: Kind, jpegs: list[bytes]) -> None:
        self.name = name
        self.paths = paths
        self.kind = kind
        #: JPEGs that can be decoded directly, if any
        self.jpegs = jpegs
        self.documents = [pymupdf.open(path) for path in paths]

    def page(self, number: int) -> Any:
        """The page in MuPDF, without decoded images."""
        pymupdf.TOOLS.store_shrink(100)
        return self.documents[0][number] if self.kind is Kind.PDF else self.documents[number][0]

    def where(self, number: int) -> tuple[Path, int]:
        return (self.paths[0], number) if self.kind is Kind.PDF else (self.paths[number], 0)


def make(folder: Path, count: int) -> list[Pages]:
    random = np.random.default_rng(7)
    greys = [scan(random) for _ in range(count)]
    colours = [yellowed(grey) for grey in greys]
    grey_jpegs = [encoded(grey, "JPEG", quality=80) for grey in greys]
    colour_jpegs = [encoded(colour, "JPEG", quality=80) for colour in colours]

    def pdf(name: str, images: list[bytes], jpegs: list[bytes]) -> Pages:
        path = folder / f"{name}.pdf"
        with pymupdf.open() as document:
            for image in images:
                page = document.new_page(width=PAGE[0], height=PAGE[1])
                page.insert_image(page.rect, stream=image)
            document.save(path)
        return Pages(name, [path], Kind.PDF, jpegs)

    def files(name: str, jpegs: list[bytes]) -> Pages:
        paths = [folder / f"{name} {number}.jpg" for number in range(count)]
        for path, jpeg in zip(paths, jpegs, strict=True):
            path.write_bytes(jpeg)
        return Pages(name, paths, Kind.JPEG, jpegs)

    fax, digital = folder / "fax.pdf", folder / "digital.pdf"
    bilevel = [grey.point(lambda value: 255 * (value > 150)).convert("1") for grey in greys]
    bilevel[0].save(fax, save_all=True, append_images=bilevel[1:], resolution=300)
    with pymupdf.open() as document:
        for _ in range(count):
            text_page(document, random)
        document.save(digital)
    return [
        pdf("PDF of grey JPEGs", grey_jpegs, grey_jpegs),
        pdf("PDF of colour JPEGs", colour_jpegs, colour_jpegs),
        files("grey JPEG files", grey_jpegs),
        files("colour JPEG files", colour_jpegs),
        Pages("PDF of CCITT G4", [fax], Kind.PDF, []),
        pdf("PDF of JPEG 2000", [encoded(colour, "JPEG2000", quality_layers=[20]) for colour in colours], []),
        pdf("PDF of Flate RGB", [encoded(colour, "PNG") for colour in colours], []),
        Pages("born-digital PDF", [digital], Kind.PDF, []),
    ]


def drawn(page: Any, long_side: int) -> Any:
    scale = long_side / max(page.rect.width, page.rect.height)
    return page.get_pixmap(matrix=pymupdf.Matrix(scale, scale), colorspace=pymupdf.csRGB, alpha=False)


def through_png(page: Any, long_side: int) -> None:
    Image.open(io.BytesIO(drawn(page, long_side).tobytes("png"))).convert("RGB").load()


def decoded(jpeg: bytes, long_side: int) -> None:
    image = Image.open(io.BytesIO(jpeg))
    scale = long_side / max(image.size)
    size = round(image.width * scale), round(image.height * scale)
    image.draft(None, size)
    pixels = cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_LINEAR)
    if image.mode == "L":
        cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)


def spent(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return (time.process_time() - before) * 1e3


def child_time(pool: RenderPool) -> tuple[int | None, float]:
    """Process id and CPU milliseconds of the first process of the pool (schedstat of Linux, in nanoseconds)."""
    pid = pool._all[0].sandbox.pid  # noqa: SLF001 - the pool's own
    return pid, int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0]) / 1e6 if pid else 0.0


def render(pool: RenderPool, pages: Pages, number: int, long_side: int, key: str = "") -> Any:
    path, index = pages.where(number)
    file = path.open("rb")

    async def work() -> Any:
        with file:
            return await pool.render(
                f"{path}{key}", file.fileno(), pages.kind, index, Render(long_side=long_side), deadline=60
            )

    return work()


def ours(pool: RenderPool, pages: Pages, number: int, long_side: int, key: str) -> float:
    process, before = child_time(pool)
    here = spent(lambda: is_blank(asyncio.run(render(pool, pages, number, long_side, key))))
    # Another document has another process; what its fork costs is in bench/sandbox.py.
    now, after = child_time(pool)
    return here + after - (before if now == process else 0)


def compare(pages: Pages, count: int, rounds: int, long_side: int, pool: RenderPool) -> None:
    ours(pool, pages, 0, long_side, "warm")  # starts the process, imports
    sides: dict[str, Callable[[int, int], float]] = {
        "png": lambda number, _: spent(functools.partial(through_png, pages.page(number), long_side)),
        "mupdf": lambda number, _: spent(functools.partial(drawn, pages.page(number), long_side)),
        "decode": lambda number, _: spent(lambda: decoded(pages.jpegs[number], long_side)),
        # Another key in each round: the child opens the document again, without cached data.
        "ours": lambda number, turn: ours(pool, pages, number, long_side, str(turn)),
    }
    if not pages.jpegs:
        del sides["decode"]
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
        # One side after the other: alternating sides would evict each other's CPU caches.
        for side, cost in sides.items():
            times[side] += [cost(number, turn) for number in range(count)]
    medians = {side: statistics.median(values) for side, values in times.items()}
    columns = "".join(f"{medians[side]:9.1f}" if side in medians else f"{'-':>9}" for side in SIDES)
    print(f"{pages.name:22}{columns}{medians['png'] / medians['ours']:9.1f}", flush=True)


def speed(pages: Pages, count: int, rounds: int, long_side: int, size: int) -> float:
    """Pages per second of a pool of this size."""

    async def page(pool: RenderPool, number: int, turn: int) -> None:
        assert not is_blank(await render(pool, pages, number, long_side, str(turn)))

    async def all_of_them(pool: RenderPool, rounds: int) -> None:
        await asyncio.gather(*(page(pool, number, turn) for turn in range(rounds) for number in range(count)))

    with closing(RenderPool(size, memory=MEMORY, max_pixels=Render(long_side=long_side).max_pixels)) as pool:
        asyncio.run(all_of_them(pool, 1))
        begun = time.perf_counter()
        asyncio.run(all_of_them(pool, rounds))
        return count * rounds / (time.perf_counter() - begun)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pages", type=int, default=6)
    options.add_argument("--rounds", type=int, default=4)
    options.add_argument("--long-side", type=int, default=1684)
    options.add_argument("--only", default="", help="only kinds of pages with this text in their name")
    chosen = options.parse_args()
    pymupdf.TOOLS.set_icc(False)  # as in the worker
    with tempfile.TemporaryDirectory() as folder:
        kinds = [pages for pages in make(Path(folder), chosen.pages) if chosen.only in pages.name]
        print(f"CPU ms per page at {chosen.long_side} px, medians of {chosen.pages} pages x {chosen.rounds} rounds")
        print(f"{'':22}" + "".join(f"{column:>9}" for column in (*SIDES, "png/ours")))
        max_pixels = Render(long_side=chosen.long_side).max_pixels
        with closing(RenderPool(1, memory=MEMORY, max_pixels=max_pixels)) as pool:
            for pages in kinds:
                compare(pages, chosen.pages, chosen.rounds, chosen.long_side, pool)
        print("pages per second (wall clock) with one renderer, with two, ratio")
        for pages in kinds:
            one, two = (speed(pages, chosen.pages, chosen.rounds, chosen.long_side, size) for size in (1, 2))
            print(f"{pages.name:22}{one:9.1f}{two:9.1f}{two / one:9.2f}", flush=True)


if __name__ == "__main__":
    main()
