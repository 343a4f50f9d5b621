"""Detection of lacking scripts on drawn pages: recall on scripts that the default engine lacks, and false alarms.

    python -m bench.scripts [--fonts FOLDER] [--pages 6] [--first 0] [--only NAME] [--print FOLDER]

Draws pages of the texts of bench/script_texts.py with the fonts below the folders (the system's by default): a page of 8 to
16 points, one of large print, one of one or two lines, and an English page with one paragraph in the script; 150 to 300 dpi, grey or bilevel,
with noise and a skew. `--print` names a folder of images of readable print: there, any detection is an error. If the
Tesseract model of a script is installed, its pages are read. Exits with 1 if a page in a lacking script is done, or if a readable
page is not done.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bench.script_lines import Fonts, Pixels
from bench.script_texts import LACKING, READ
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.settings import Settings
from worker import engines
from worker.engines.base import Engine
from worker.imaging.page_image import PageImage

_KINDS = ("full", "large", "sparse", "mixed")


def page(text: str, font: Path, kind: str, plain: Path, *, seed: str) -> Pixels:
    """Return a page with a text, RGB. `plain`: font of the English text on mixed pages."""
    rng = random.Random(seed)
    dpi = rng.choice((150, 200, 300))
    points = {"large": rng.uniform(24, 40), "sparse": rng.uniform(10, 20)}.get(kind, rng.uniform(8, 16))
    sheet = Image.new("L", (round(8.27 * dpi), round(11.69 * dpi)), rng.randint(215, 255))
    pen, size = ImageDraw.Draw(sheet), round(points * dpi / 72)
    y = dpi
    lines = {"full": 18, "large": 6, "sparse": rng.randint(1, 2), "mixed": 5}[kind]
    face, other = ImageFont.truetype(str(font), size), ImageFont.truetype(str(plain), size)
    if kind == "mixed":
        y = _write(pen, READ["English"], other, y=y, dpi=dpi, lines=12)
    y = _write(pen, text, face, y=y, dpi=dpi, lines=lines)
    if kind == "mixed":
        _write(pen, READ["English"], other, y=y, dpi=dpi, lines=12)
    pixels: NDArray[Any] = np.asarray(sheet, dtype=np.float32)
    turn = cv2.getRotationMatrix2D((sheet.width / 2, sheet.height / 2), rng.uniform(-0.7, 0.7), 1)
    pixels = np.asarray(cv2.warpAffine(pixels, turn, sheet.size, borderValue=250), np.float32)
    look = rng.randrange(4)
    if look == 1:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), dpi / 250), np.float32)
    if look == 2:
        pixels = pixels + np.random.default_rng(rng.randrange(1 << 30)).normal(0, 14, pixels.shape)
    if look == 3:
        pixels = np.where(pixels > 140, 255.0, 0.0)
    grey = np.clip(pixels, 0, 255).astype(np.uint8)
    scale = 2500 / max(grey.shape)
    grey = np.asarray(
        cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC),
        np.uint8,
    )
    return np.repeat(grey[:, :, None], 3, axis=2)


def _write(pen: ImageDraw.ImageDraw, text: str, face: ImageFont.FreeTypeFont, *, y: int, dpi: int, lines: int) -> int:
    words = text.split() if " " in text else list(text)
    glue, at = (" " if " " in text else ""), 0
    for _ in range(lines):
        line: list[str] = []
        while not line or (len(line) < 40 and face.getlength(glue.join([*line, words[at % len(words)]])) < 6.3 * dpi):
            line.append(words[at % len(words)])
            at += 1
        pen.text((dpi, y), glue.join(line), font=face, fill=30)
        y += round(1.5 * face.size)
    return y + round(face.size)


async def measure(folders: list[Path], seeds: range, only: str | None, printed: list[Path]) -> bool:
    """Read the pages and print a line per script; return whether there is no error."""
    engine = engines.create(RAPIDOCR, Settings())
    await engine.start()
    fonts = Fonts(folders)
    plain = fonts.of(READ["English"])
    good = True
    for name, text in {**LACKING, **READ}.items():
        found = fonts.of(text)
        if not found or (only and only != name):
            print(f"{name:14} no font" if not found else "", end="\n" if not found else "")
            continue
        outcomes: Counter[str] = Counter()
        for seed in seeds:
            rng = random.Random(f"{name} {seed}")
            font = rng.choice(found[rng.choice(sorted(found))])
            kind = _KINDS[seed % len(_KINDS)]
            latin = rng.choice(plain[rng.choice(sorted(plain))])
            pixels = page(text, font, kind, latin, seed=f"{name} {seed}")
            outcome = await _outcome(engine, pixels)
            outcomes[outcome] += 1
            wrong = name in LACKING and (outcome == "done" or name not in outcome)
            if wrong or (name in READ and outcome != "done"):
                print(f"  {name} {seed}: {outcome}, a {kind} page in {font.name}")
        good &= not outcomes["done"] if name in LACKING else outcomes.total() == outcomes["done"]
        print(f"{name:14} {', '.join(f'{count} {outcome}' for outcome, count in outcomes.most_common())}", flush=True)
    for path in printed:
        image = Image.open(path).convert("RGB")
        image.thumbnail((2500, 2500))
        outcome = await _outcome(engine, np.asarray(image))
        good &= outcome == "done"
        print(f"{path.name}: {outcome}", flush=True)
    await engine.stop()
    return good


async def _outcome(engine: Engine, pixels: Pixels) -> str:
    height, width = pixels.shape[:2]
    image = PageImage(pixels=np.ascontiguousarray(pixels), width_pt=width * 842 / 2500, height_pt=height * 842 / 2500)
    recognition = await engine.recognise(image, RAPIDOCR)
    if recognition.lacking is not None:
        return f"lacks {recognition.lacking.partition(' are in ')[2].partition(',')[0]}"
    return "done" if recognition.read_by is None else f"read with {recognition.read_by.model}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fonts", type=Path, action="append")
    parser.add_argument("--pages", type=int, default=6, help="pages of each script")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--print", type=Path)
    arguments = parser.parse_args()
    folders = arguments.fonts or [Path("/usr/share/fonts")]
    seeds = range(arguments.first, arguments.first + arguments.pages)
    printed = sorted(arguments.print.iterdir()) if arguments.print else []
    good = asyncio.run(measure(folders, seeds, arguments.only, printed))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
