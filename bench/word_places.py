"""Placing the words of a model's text on the page image: share of words within half a line height of their place, and CPU time.

    python -m bench.word_places CORPUS [--truth FOLDER] [--cache FOLDER] [--seeds 3]

The model's text is simulated: the ground truth with 5 % wrong characters, two missing lines, one repeated line, and one block in
another place. Pages: those of the corpus with a text layer (known word boxes), those with a PAGE or ALTO file in FOLDER under the
name of the corpus file (known line boxes: the middle of a word must be within half a line height of its line), and drawn pages
(known word boxes). CORPUS holds `manifest.csv` and `files/`. --cache keeps the words of detector and recogniser for the next run.
Exits with 1 if the total is below 95 %.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
import string
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lxml import etree
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.pages import Placed, Word
from ocrfleet.sandbox.sniff import SNIFF_BYTES, sniff
from worker.engines import rapidocr
from worker.formats.page_layout import Box
from worker.imaging.page_image import PageImage
from worker.rendering.pool import RenderPool
from worker.text_layer.trust import TextLayerWords, distrust, printed_lines
from worker.words.find import found_words
from worker.words.placing import ModelWord, place

TARGET = 0.95
WRONG, MISSING, TWICE = 0.05, 2, 1
#: Maximum number of pages per document.
MOST = 4


class TrueWord(NamedTuple):
    text: str
    box: Box
    #: whether only the box of the line is known
    of_line: bool
    height: float


@dataclass
class TruePage:
    name: str
    image: PageImage
    #: words by line, lines by block
    blocks: list[list[list[TrueWord]]]


def with_errors(blocks: list[list[list[TrueWord]]], chance: random.Random) -> list[tuple[str, int, TrueWord]]:
    """Return the simulated text of a model: words with their rows and their true words."""
    rows = [row for block in blocks for row in block]
    order = list(range(len(rows)))
    if len(order) > 8:
        for number in chance.sample(order, MISSING):
            order.remove(number)
        again = chance.choice(order)
        order.insert(order.index(again) + 1, again)
        # Move a fifth of the page to another place.
        size = len(order) // 5
        begin = chance.randrange(len(order) - size)
        moved, order = order[begin : begin + size], order[:begin] + order[begin + size :]
        there = chance.randrange(len(order))
        order[there:there] = moved
    return [(misread(word.text, chance), row, word) for row, number in enumerate(order) for word in rows[number]]


def misread(text: str, chance: random.Random) -> str:
    """Return a word with 5 % of its characters replaced, left out, or followed by another."""
    letters = string.ascii_lowercase
    kinds = (lambda _: chance.choice(letters), lambda _: "", lambda one: one + chance.choice(letters))
    read = "".join(chance.choice(kinds)(one) if chance.random() < WRONG else one for one in text)
    return read or text


def is_right(word: Word, truth: TrueWord) -> bool:
    """Return whether a word is within half a line height of its place."""
    x, y = (word.box[0] + word.box[2]) / 2, (word.box[1] + word.box[3]) / 2
    x0, y0, x1, y1 = truth.box
    near = truth.height / 2
    if truth.of_line:
        return x0 - near <= x <= x1 + near and abs(y - (y0 + y1) / 2) <= near
    return abs(x - (x0 + x1) / 2) <= near and abs(y - (y0 + y1) / 2) <= near


def of_text_layer(layer: TextLayerWords, image: PageImage) -> list[list[list[TrueWord]]]:
    """Return the words of a text layer; none if it is not trusted."""
    if distrust(layer, image) is not None:
        return []
    blocks = []
    for _, lines in groupby(printed_lines(layer, image), key=lambda line: line.paragraph):
        blocks.append(
            [
                [TrueWord(word.text, word.box, False, line.line.box[3] - line.line.box[1]) for word in line.words]
                for line in lines
            ]
        )
    return blocks


def of_xml(path: Path, image: PageImage) -> list[list[list[TrueWord]]]:
    """Return the words of a PAGE or ALTO file, by lines and regions."""
    root = etree.parse(path, etree.XMLParser(resolve_entities=False, no_network=True)).getroot()
    page = next(root.iter("{*}Page"))
    size = page.get("imageWidth") or page.get("WIDTH"), page.get("imageHeight") or page.get("HEIGHT")
    across, down = image.width / float(size[0]), image.height / float(size[1])
    blocks: dict[object, list[list[TrueWord]]] = {}
    for line in root.iter("{*}TextLine"):
        points = line.find("{*}Coords").get("points") if line.find("{*}Coords") is not None else None
        if points is not None:
            corners = np.array([[float(value) for value in point.split(",")] for point in points.split()])
            (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
            texts = line.findall("{*}TextEquiv/{*}Unicode")
            text = (texts[-1].text or "") if texts else ""
        else:
            x0, y0 = float(line.get("HPOS")), float(line.get("VPOS"))
            x1, y1 = x0 + float(line.get("WIDTH")), y0 + float(line.get("HEIGHT"))
            text = " ".join(one.get("CONTENT", "") for one in line.iter("{*}String"))
        box = (x0 * across, y0 * down, x1 * across, y1 * down)
        words = [TrueWord(word, box, True, box[3] - box[1]) for word in text.split()]
        if words:
            blocks.setdefault(line.getparent(), []).append(words)
    return list(blocks.values())


def drawn(seed: int) -> TruePage:
    """Return a page in one or two columns, with paragraphs, hyphens, and a table."""
    chance = random.Random(seed)  # noqa: S311 - a drawing
    image = Image.new("RGB", (1654, 2339), (250, 248, 242))
    on, font = ImageDraw.Draw(image), ImageFont.load_default(30 if seed % 2 else 26)
    columns = [(150, 1500)] if seed % 2 else [(120, 790), (860, 1530)]
    blocks = []
    for left, right in columns:
        y = 150
        while y < 1900:
            block = []
            for _ in range(chance.randint(3, 9)):
                row, x = [], float(left)
                while True:
                    text = "".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 10)))
                    text += chance.choice(["", "", "", ",", "-"])
                    width = on.textlength(text, font)
                    if x + width > right:
                        break
                    on.text((x, y), text, (30, 30, 30), font)
                    x0, y0, x1, y1 = on.textbbox((x, y), text, font)
                    row.append(TrueWord(text, (x0, y0, x1, y1), False, 36))
                    x += width + 12
                block.append(row)
                y += 44
            blocks.append(block)
            y += 40
    table = []
    for number in range(6):
        row = []
        for column in range(4):
            text = "Total" if not column and not number else f"{chance.randint(1, 9999):,}"
            on.text((200 + 330 * column, 1980 + 48 * number), text, (30, 30, 30), font)
            row.append(TrueWord(text, on.textbbox((200 + 330 * column, 1980 + 48 * number), text, font), False, 36))
        table.append(row)
    pixels = np.asarray(image)
    return TruePage(f"drawn-{seed}", PageImage(pixels=pixels, width_pt=595, height_pt=842), [*blocks, table])


async def true_pages(corpus: Path, truth: Path | None) -> list[TruePage]:
    """Return the rendered pages of the corpus with a ground truth."""
    found = []
    with closing(RenderPool(1, memory=1 << 30, max_pixels=40_000_000)) as pool:
        for row in csv.DictReader((corpus / "manifest.csv").read_text(encoding="utf-8").splitlines()):
            path = corpus / row["file"]
            xml = truth / f"{path.stem}.xml" if truth is not None else None
            if row["has_text_layer"] not in {"yes", "True", "true"} and (xml is None or not xml.is_file()):
                continue
            with path.open("rb") as file:
                kind = sniff(file.read(SNIFF_BYTES))
                assert kind is not None
                passwords = [row["password"]] if row["password"] else []
                for index in range(min(int(row["pages"] or 0), MOST)):
                    whole = row["sha256"], file.fileno(), kind, index
                    image = await pool.render(*whole, RAPIDOCR.render, passwords=passwords, deadline=60)
                    if xml is not None and xml.is_file():
                        blocks = of_xml(xml, image)
                    else:
                        layer = await pool.layer(*whole, passwords=passwords, deadline=60)
                        blocks = of_text_layer(layer, image)
                    if blocks:
                        found.append(TruePage(f"{path.stem}:{index + 1}", image, blocks))
    return found


def seen_words(pages: list[TruePage], cache: Path | None) -> dict[str, tuple[list[Word], float]]:
    """Return the words found on each page, and the CPU seconds, as in the processes of a worker."""
    models = rapidocr.load(RAPIDOCR)
    found = {}
    for page in pages:
        kept = cache / f"{page.name}.json" if cache is not None else None
        if kept is not None and kept.is_file():
            words, seconds = json.loads(kept.read_text())
        else:
            begun = time.process_time()
            words = [list(word) for word in found_words(models, page.image.pixels)]
            seconds = time.process_time() - begun
            if kept is not None:
                kept.write_text(json.dumps((words, seconds)))
        found[page.name] = [Word(word[0], tuple(word[1]), *word[2:]) for word in words], seconds
    return found


def measure(pages: list[TruePage], seen: dict[str, tuple[list[Word], float]], seeds: int) -> float:
    """Print the table; return the share of correctly placed words."""
    print(
        f"{'page':28} {'words':>6} {'right':>7} {'detected':>9} {'interp.':>8} {'block':>6} {'see ms':>7} {'place ms':>8}"
    )
    total = Counter[str]()
    for page in pages:
        words, seconds = seen[page.name]
        count, right, spent = Counter[Placed](), 0, 0.0
        for seed in range(seeds):
            written = with_errors(page.blocks, random.Random(seed))  # noqa: S311 - a measurement
            given = [ModelWord(text, None, row) for text, row, _ in written]
            begun = time.process_time()
            placed = place(given, words, [], (0.0, 0.0, float(page.image.width), float(page.image.height)))
            spent += time.process_time() - begun
            assert [word.text for word in placed] == [word.text for word in given]
            count.update(word.placed for word in placed)
            right += sum(is_right(word, truth) for word, (_, _, truth) in zip(placed, written, strict=True))
        number = sum(count.values())
        total.update({"words": number, "right": right, "ms": round((seconds + spent / seeds) * 1000)})
        total.update({f"{kind}": amount for kind, amount in count.items()})
        print(
            f"{page.name:28} {number // seeds:6} {right / number:7.1%} {count[Placed.DETECTED] / number:9.1%} "
            f"{count[Placed.INTERPOLATED] / number:8.1%} {count[Placed.BLOCK] / number:6.1%} {seconds * 1000:7.0f} "
            f"{spent / seeds * 1000:8.1f}"
        )
    share = total["right"] / total["words"]
    print(
        f"all: {share:.1%} of {total['words']} words are within half a line height; {total['ms'] / len(pages):.0f} ms a page"
    )
    return share


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    pages = [*asyncio.run(true_pages(chosen.corpus, chosen.truth)), *map(drawn, range(1, 5))]
    return 0 if measure(pages, seen_words(pages, chosen.cache), chosen.seeds) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
