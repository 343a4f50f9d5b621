"""Pages of the corpus as a worker renders them, with their known or recognised texts."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ocrfleet.profiles.profile import RAPIDOCR, Render
from ocrfleet.sandbox.sniff import SNIFF_BYTES, sniff
from ocrfleet.settings import Settings
from worker import engines
from worker.imaging.page_image import PageImage
from worker.rendering.pool import RenderPool
from worker.text_layer import trust as text_layer

if TYPE_CHECKING:
    from worker.text_layer.words import TextLayerWords

SIDES = (512, 640, 1024, 1280, 1684, 2500)
#: Step between pages of the document with 117 pages.
EVERY = 9
MAX_PIXELS = 8_000_000
#: Pages with correct text layers (checked by hand) that a worker does not trust.
RIGHT_LAYERS = {
    "born-multicolumn.pdf:3",
    "born-117p-maths.pdf:1",
    "born-117p-maths.pdf:46",
    "born-117p-maths.pdf:109",
    "table-rotated.pdf:1",
}
#: Scans without a known text; RapidOCR reads page 1 of each.
SCANS = (
    "ccitt.pdf",
    "huge-page.pdf",
    "japanese-scan.jpg",
    "jbig2.pdf",
    "maths-scan.jpg",
    "mixed-sizes.pdf",
    "png-map.png",
    "rotated-90.pdf",
    "scan-modern.pdf",
    "typewriter.png",
    "webp.webp",
)


def pages(corpus: Path) -> tuple[dict[str, dict[int, PageImage]], dict[str, TextLayerWords]]:
    """Return the rendered pages by file and number, each at all long sides, and their text layers."""
    found: dict[str, dict[int, PageImage]] = {}
    layers: dict[str, TextLayerWords] = {}

    async def render(pool: RenderPool, path: Path, row: dict[str, str]) -> None:
        passwords = [row["password"]] if row["password"] else []
        with path.open("rb") as file:
            kind = sniff(file.read(SNIFF_BYTES))
            assert kind is not None
            count = int(row["pages"])
            for index in range(0, count, EVERY if count > 2 * EVERY else 1):
                name, whole = f"{path.name}:{index + 1}", (row["sha256"], file.fileno(), kind, index)
                for side in SIDES:
                    look = Render(long_side=side, max_pixels=MAX_PIXELS)
                    found.setdefault(name, {})[side] = await pool.render(*whole, look, passwords=passwords, deadline=60)
                layers[name] = await pool.layer(*whole, passwords=passwords, deadline=60)

    async def run() -> None:
        pool = RenderPool(1, memory=1 << 30, max_pixels=MAX_PIXELS)
        try:
            for row in csv.DictReader((corpus / "manifest.csv").read_text(encoding="utf-8").splitlines()):
                if (row["pages"] or "0") != "0":
                    await render(pool, corpus / row["file"], row)
        finally:
            pool.close()

    asyncio.run(run())
    return found, layers


def known_texts(
    corpus: Path, found: dict[str, dict[int, PageImage]], layers: dict[str, TextLayerWords]
) -> dict[str, str]:
    """Return the known texts of pages."""
    texts = {}
    for name, layer in layers.items():
        image = found[name][1280]
        if layer.words and (name in RIGHT_LAYERS or text_layer.distrust(layer, image) is None):
            texts[name], _ = text_layer.reading(layer, image)
    for row in csv.DictReader((corpus / "manifest.csv").read_text(encoding="utf-8").splitlines()):
        name = f"{Path(row['file']).name}:1"
        if row["ground_truth_kind"] in ("transcription", "text-layer"):
            texts[name], *_ = (corpus / row["ground_truth"]).read_text(encoding="utf-8").split("\f")
        elif row["ground_truth_kind"] == "facts":
            facts = (corpus / row["ground_truth"]).read_text(encoding="utf-8").splitlines()
            texts[name] = "\n".join(json.loads(line)["text"] for line in facts)
    return texts


def read_texts(found: dict[str, dict[int, PageImage]]) -> dict[str, str]:
    """Return the texts that RapidOCR recognises on the scans."""

    async def run() -> dict[str, str]:
        engine = engines.create(RAPIDOCR, Settings())
        await engine.start()
        try:
            return {
                f"{name}:1": (await engine.recognise(found[f"{name}:1"][SIDES[-1]], RAPIDOCR)).text for name in SCANS
            }
        finally:
            await engine.stop()

    return asyncio.run(run())
