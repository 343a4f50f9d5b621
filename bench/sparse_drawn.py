"""Drawn A4 pages with one to five words in 20 fonts: detectors tend to miss such words."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FOLDER = Path("/usr/share/fonts")
#: Print fonts, then typewriter fonts. None has old-style figures, in which 1 may look like a small capital I.
FONTS = (
    "truetype/dejavu/DejaVuSans.ttf",
    "truetype/dejavu/DejaVuSerif.ttf",
    "truetype/liberation/LiberationSans-Regular.ttf",
    "truetype/liberation/LiberationSerif-Regular.ttf",
    "truetype/liberation/LiberationSerif-Italic.ttf",
    "opentype/urw-base35/C059-Roman.otf",
    "opentype/urw-base35/C059-BdIta.otf",
    "opentype/urw-base35/P052-Roman.otf",
    "opentype/urw-base35/P052-Bold.otf",
    "opentype/urw-base35/URWBookman-Light.otf",
    "opentype/urw-base35/URWBookman-Demi.otf",
    "opentype/urw-base35/NimbusRoman-Regular.otf",
    "opentype/urw-base35/NimbusSans-Bold.otf",
    "opentype/urw-base35/NimbusSansNarrow-Regular.otf",
    "opentype/urw-base35/URWGothic-Book.otf",
    "truetype/fonts-oldstandard/OldStandard-Regular.ttf",
    "opentype/sortsmill/GoudyBookletter1911.otf",
    "opentype/courier-prime/Courier Prime.otf",
    "truetype/gnutypewriter/GNUTypewriter.ttf",
    "opentype/urw-base35/NimbusMonoPS-Regular.otf",
)
#: Debian packages of these fonts.
PACKAGES = "fonts-dejavu fonts-liberation fonts-urw-base35 fonts-oldstandard fonts-goudybookletter fonts-courier-prime fonts-gnutypewriter"
_POINTS = (7, 8, 9, 10, 11, 12, 14, 18, 24, 36, 48)
#: Minimum size for 150 dpi: smaller letters are illegible.
_SMALLEST_AT_150 = 9
_WORDS = (  # noqa: SIM905 - a list of eighty
    "Preface Contents Index FINIS Chapter Plate Appendix Notes Errata Dedication Epilogue Frontispiece Volume Part Book "
    "harbour winter ledger mother father memory London Paris letters garden river seventh printed copyright reserved "
    "edition second Monday October inventory archive receipt folio recto verso page illustration figure table map Smith "
    "Elizabeth JOHN MURRAY HISTORY ENGLAND POEMS SERMONS ABROAD to my of the and by for"
).split()
_ROMAN = ("II", "III", "IV", "VI", "VII", "IX", "XII", "XIV", "XX", "LXIV")
_INCH_HIGH, _INCH_WIDE, _MARGIN = 11.69, 8.27, 0.5


@dataclass(frozen=True, slots=True)
class SparsePage:
    #: grey, shape (height, width)
    pixels: NDArray[np.uint8]
    words: tuple[str, ...]
    dpi: int
    #: description of the drawing
    note: str


def sparse_page(seed: int) -> SparsePage:
    """Draw the page of this number, which determines the words and the font."""
    chance = random.Random(seed)  # noqa: S311 - a drawing
    font_name = FONTS[seed // 5 % len(FONTS)]
    words = tuple(_number(chance) if chance.random() < 0.35 else chance.choice(_WORDS) for _ in range(1 + seed % 5))
    dpi, points, bilevel = chance.choice((150, 200, 200, 300, 300)), chance.choice(_POINTS), chance.random() < 0.5
    if dpi == 150 and points < _SMALLEST_AT_150:
        dpi = 200
    ink, paper = (0, 255) if bilevel else (chance.randint(10, 90), chance.randint(215, 252))
    sheet = Image.new("L", (round(_INCH_WIDE * dpi) * 2, round(_INCH_HIGH * dpi) * 2), paper)
    _write(sheet, words, font_file=str(_FOLDER / font_name), size=points * dpi / 72 * 2, ink=ink, chance=chance)
    skew = chance.choice((0.0, 0.0, chance.uniform(-3, 3)))
    sheet = sheet.rotate(skew, resample=Image.Resampling.BICUBIC, fillcolor=paper)
    pixels = np.asarray(sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.BOX)).astype(np.float32)
    flaw = chance.choice(("clean", "clean", "noise", "specks", "noise and specks"))
    pixels = _with_noise(pixels, flaw, chance, np.random.default_rng(seed), bilevel=bilevel)
    if "specks" in flaw:
        _add_specks(pixels, chance, ink)
    note = f"{Path(font_name).stem} {points} pt, {dpi} dpi, {'bilevel' if bilevel else 'grey'}, {flaw}, skew {skew:.1f}"
    return SparsePage(np.clip(pixels, 0, 255).astype(np.uint8), words, dpi, note)


def _number(chance: random.Random) -> str:
    numbers = (str(chance.randint(10, 999)), str(chance.randint(1650, 1999)), chance.choice(_ROMAN))
    return chance.choice((*numbers, f"{chance.randint(1, 40)}.{chance.randint(0, 99):02d}"))


def _write(
    sheet: Image.Image, words: tuple[str, ...], *, font_file: str, size: float, ink: int, chance: random.Random
) -> None:
    """Write the words on one or more lines at random places without overlap."""
    draw = ImageDraw.Draw(sheet)
    margin = _MARGIN / _INCH_WIDE * sheet.width
    placed: list[tuple[float, float, float, float]] = []
    first = 0
    while first < len(words):
        last = first + chance.randint(1, len(words) - first)
        text, first = " ".join(words[first:last]), last
        font = ImageFont.truetype(font_file, size)
        while draw.textlength(text, font=font) > sheet.width - 2 * margin - 4:
            size *= 0.8
            font = ImageFont.truetype(font_file, size)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height, apart = right - left, bottom - top, 1.5 * size
        for _ in range(200):
            x = chance.uniform(margin, sheet.width - margin - width)
            y = chance.uniform(margin, sheet.height - margin - height)
            if all(
                x + width + apart < x0 or x1 + apart < x or y + height + apart < y0 or y1 + apart < y
                for x0, y0, x1, y1 in placed
            ):
                break
        placed.append((x, y, x + width, y + height))
        draw.text((x - left, y - top), text, fill=ink, font=font)


def _with_noise(
    pixels: NDArray[np.float32], flaw: str, chance: random.Random, random_: np.random.Generator, *, bilevel: bool
) -> NDArray[np.float32]:
    if bilevel:
        grain = random_.normal(0, 40, pixels.shape) if "noise" in flaw else 0.0
        return np.where(pixels + grain < 128, 0, 255).astype(np.float32)
    if "noise" not in flaw:
        return pixels
    return (cv2.GaussianBlur(pixels, (0, 0), 0.6) + random_.normal(0, chance.uniform(3, 14), pixels.shape)).astype(
        np.float32
    )


def _add_specks(pixels: NDArray[np.float32], chance: random.Random, ink: int) -> None:
    for _ in range(chance.randint(5, 120)):
        x, y, radius = (
            chance.randrange(pixels.shape[1]),
            chance.randrange(pixels.shape[0]),
            chance.choice((0, 0, 1, 1, 2)),
        )
        pixels[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1] = ink
