"""Pages of prose that carry a number, and an engine that answers what the plan's "answers" have for it.

The plan: {"answers": {"0": "what is answered for page 0", …}}; a page without an answer is read rightly.
"""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worker.engines.base import Recognition
from worker.imaging.page_image import PageImage

#: Pixels of a page, of a square of its number, and of its print.
SIDE, _SQUARE, _PRINT = 640, 16, 24
_BITS = 6
_LETTERS = 44

_ADJECTIVES = [
    "old",
    "quiet",
    "narrow",
    "golden",
    "broken",
    "hungry",
    "foreign",
    "patient",
    "crooked",
    "silver",
    "distant",
    "muddy",
    "famous",
    "sudden",
    "humble",
    "clever",
    "empty",
    "frozen",
    "gentle",
    "hollow",
    "jealous",
    "lonely",
    "modest",
    "proud",
    "rusty",
    "secret",
    "tired",
    "useful",
    "violet",
    "wooden",
]
_NOUNS = [
    "ferryman",
    "teacher",
    "captain",
    "widow",
    "clerk",
    "harbour",
    "orchard",
    "letter",
    "barrel",
    "window",
    "kitchen",
    "journey",
    "candle",
    "market",
    "bridge",
    "winter",
    "garden",
    "soldier",
    "village",
    "ladder",
    "mirror",
    "basket",
    "island",
    "sparrow",
    "blanket",
    "hammer",
    "meadow",
    "pocket",
    "thunder",
    "chapel",
    "anchor",
    "bottle",
    "carpet",
    "doctor",
    "engine",
    "feather",
    "guitar",
    "helmet",
    "insect",
    "jacket",
    "kettle",
    "lantern",
    "magnet",
    "needle",
    "oyster",
    "pencil",
    "quarry",
    "ribbon",
    "saddle",
    "timber",
    "uncle",
    "valley",
    "wagon",
    "yacht",
    "zebra",
    "almond",
    "bishop",
    "cousin",
    "desert",
    "eagle",
    "forest",
    "goblin",
    "hunter",
    "ivory",
    "jungle",
]
_VERBS = [
    "bought",
    "forgot",
    "carried",
    "painted",
    "remembered",
    "counted",
    "mended",
    "followed",
    "avoided",
    "praised",
    "borrowed",
    "hid",
    "sold",
    "found",
    "watched",
    "buried",
    "cleaned",
    "drew",
    "earned",
    "fed",
    "guarded",
    "hated",
    "invented",
    "joined",
    "kissed",
    "liked",
    "moved",
    "needed",
    "offered",
    "pulled",
]
_PLACES = ["near", "behind", "above", "below", "beside", "inside", "beyond", "under"]


def prose(number: int) -> str:
    """Return five sentences that no other number has."""
    chance = np.random.default_rng(number)
    sentences = []
    for _ in range(5):
        who, whom, where = chance.choice(_NOUNS, 3, replace=False)
        one, other = chance.choice(_ADJECTIVES, 2, replace=False)
        sentences.append(
            f"{one} {who} {chance.choice(_VERBS)} a {other} {whom} {chance.choice(_PLACES)} the {where}.".capitalize()
        )
    return "\n".join(textwrap.wrap(" ".join(sentences), _LETTERS))


def draw_prose(number: int) -> Image.Image:
    """Return a page of prose with its number in squares at the left edge."""
    page = Image.new("L", (SIDE, SIDE), 255)
    font = ImageFont.load_default(_PRINT)
    ImageDraw.Draw(page).multiline_text((40, 60), prose(number), fill=20, font=font, spacing=10)
    for bit in range(_BITS):
        if number >> bit & 1:
            page.paste(0, (0, bit * _SQUARE, _SQUARE, (bit + 1) * _SQUARE))
    return page


def write_proses(path: Path, numbers: list[int]) -> Path:
    """Write a TIFF with one page of prose for each number."""
    first, *rest = [draw_prose(number) for number in numbers]
    first.save(path, save_all=True, append_images=rest, dpi=(100, 100))
    return path


class InventingEngine:
    """The plan has the answer for each page."""

    version = "inventing 1"
    concurrency = 1
    ahead = 0
    broken = None
    interruptible = True

    def __init__(self, profile: object, settings: object) -> None:
        plan = os.environ.get("OCRFLEET_TEST_PLAN")
        self._answers: dict[str, str] = json.loads(Path(plan).read_text())["answers"] if plan else {}

    async def start(self) -> None:
        pass

    async def recognise(self, image: PageImage, profile: object) -> Recognition:
        if image.width != SIDE:
            return Recognition(text="the canary")
        centres = np.arange(_BITS) * _SQUARE + _SQUARE // 2
        number = sum(1 << bit for bit, y in enumerate(centres) if image.pixels[y, _SQUARE // 2, 0] < 128)
        return Recognition(text=self._answers.get(str(number), prose(number)))

    async def stop(self) -> None:
        pass
