"""Drawn lines in many scripts, from the fonts of a folder: training data of bench/scripts_train.py.

Words are the names of languages, countries, currencies, months and days in the locales of CLDR, from Babel. Scripts without a
locale get random letters.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pymupdf
from babel import Locale, localedata
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ocrfleet.profiles.scripts import SCRIPTS

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path


Pixels = NDArray[np.uint8]

#: Scripts without a Tesseract model, by the first word of the Unicode names of their letters; they are one class.
OTHERS = [
    "ADLAM",
    "BALINESE",
    "BATAK",
    "BRAHMI",
    "BUGINESE",
    "CHAKMA",
    "CHAM",
    "COPTIC",
    "DESERET",
    "EGYPTIAN",
    "GLAGOLITIC",
    "GOTHIC",
    "JAVANESE",
    "LEPCHA",
    "LIMBU",
    "LISU",
    "MEETEI",
    "MONGOLIAN",
    "NKO",
    "OGHAM",
    "OL",
    "OSAGE",
    "PHOENICIAN",
    "RUNIC",
    "SAMARITAN",
    "SUNDANESE",
    "SYLOTI",
    "TAI",
    "TIFINAGH",
    "TIRHUTA",
    "VAI",
    "YI",
]
_LETTERS = (0x370, 0x3000), (0xA000, 0xD800), (0x10280, 0x12500), (0x13000, 0x13430), (0x16800, 0x16B00)
#: Fonts of symbols, or of letters with rules over them.
_NO_PRINT = ("Symbol", "opens___", "Jamo", "3D", "glyphicons", "Punt", "Pautad", "Guiada", "Music")
_NO_SPACES = {"CJK", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}
_BREATHINGS = {
    "ά": "ὰάᾶἀἁἄἅᾳᾷ",
    "έ": "ὲέἐἑἔἕ",
    "ή": "ὴήῆἠἡἤἥῃῇ",
    "ί": "ὶίῖἰἱἴἵ",
    "ό": "ὸόὀὁὄὅ",
    "ύ": "ὺύῦὐὑὔὕ",
    "ώ": "ὼώῶὠὡὤὥῳῷ",
}
_DOTTED = dict(zip("hstdzmnlrkeoiuawy", "ḥṣṭḍẓṃṇḷṛḵẹọịụạẅỳ", strict=True))
_ODD = (
    "http://www.example.org/a?b=1",
    "info@example.com",
    "ISBN 978-3-16-148410-0",
    "+49 30 1234567",
    "23/04/1987",
    "½ lb. @ 3s. 6d.",
)


def script_of(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0] if unicodedata.category(letter)[0] == "L" else ""


class Words:
    """Words of each script, by locale. `signs`: characters that the recogniser can output."""

    def __init__(self, signs: frozenset[str]) -> None:
        self._signs = signs
        self.by_script: dict[str, list[list[str]]] = defaultdict(list)
        for identifier in sorted(localedata.locale_identifiers()):
            words = _words_of(identifier)
            scripts = Counter(script for word in words for script in map(script_of, word) if script)
            if not scripts:
                continue
            top = scripts.most_common(1)[0][0]
            if top in ("HIRAGANA", "KATAKANA", "CJK"):
                self.by_script["CJK"].append(sorted(words))
                continue
            own = sorted(
                word
                for word in words
                if {"", top, "MODIFIER"} >= set(map(script_of, word)) and top in map(script_of, word)
            )
            if len(own) < 60:
                continue
            if top != "LATIN":
                self.by_script[top].append(own)
            elif identifier == "vi":
                self.by_script["VIETNAMESE"].append(own)
            elif sum(map(self._lacks, own)) >= len(own) / 4:
                self.by_script["MARKED"].append(own)
            else:
                self.by_script["LATIN"].append([word for word in own if not self._lacks(word)])

    def _lacks(self, word: str) -> bool:
        return any(
            sign not in self._signs and unicodedata.category(sign)[0] in "LM"
            for sign in unicodedata.normalize("NFC", word)
        )

    def line(self, script: str, rng: random.Random) -> str:
        """Return a line of one to six words."""
        count = rng.choice((1, 2, 2, 3, 3, 4, 5, 6))
        if self.by_script.get(script):
            words = rng.choices(rng.choice(self.by_script[script]), k=count)
        else:
            words = ["".join(rng.choices(letters(script), k=rng.randint(2, 9))) for _ in range(count)]
        if script == "GREEK" and rng.random() < 0.5:
            words = ["".join(rng.choice(_BREATHINGS.get(letter, letter)) for letter in word) for word in words]
        if script == "MARKED" and rng.random() < 0.5:
            plain = rng.choices(rng.choice(self.by_script["LATIN"]), k=count)
            words = [
                "".join(_DOTTED.get(letter, letter) if rng.random() < 0.25 else letter for letter in word)
                for word in plain
            ]
            words += [] if any(map(self._lacks, words)) else ["muḥaṣṣal"]
        style = rng.random()
        if style < 0.1:
            words = [word.upper() for word in words]
        elif style < 0.3:
            words = [word.title() if rng.random() < 0.3 else word for word in words]
        glue = "" if script in _NO_SPACES and rng.random() < 0.7 else " "
        return glue.join(_punctuated(word, rng) for word in words)

    def figures(self, rng: random.Random) -> str:
        """Return a line of numbers, dots, formulas or addresses."""
        kind = rng.randrange(6)
        if kind == 0:
            return " ".join(str(rng.randint(0, 10 ** rng.randint(1, 6))) for _ in range(rng.randint(1, 8)))
        if kind == 1:
            return "   ".join(f"{rng.uniform(0, 5000):,.2f}" for _ in range(rng.randint(1, 6)))
        if kind == 2:
            return f"{self.line('LATIN', rng)} {'. ' * rng.randint(5, 25)}{rng.randint(1, 400)}"
        if kind == 3:
            return "".join(rng.choices("αβγδεζθλμπσφω=+-/()xyzabc∑∫≤≥^2_i0123456789", k=rng.randint(5, 30)))
        if kind == 4:
            return "".join(rng.choices("IVXLCDM0123456789-–—.,:;/()[]&%$§°*†", k=rng.randint(2, 20)))
        return rng.choice(_ODD)


def _words_of(identifier: str) -> set[str]:
    locale = Locale.parse(identifier)
    names: list[str] = []
    for table in (locale.languages, locale.territories, locale.scripts, locale.currencies):
        names += table.values()
    for forms in (*locale.months.values(), *locale.days.values()):
        for table in forms.values():
            names += table.values()
    return {word for name in names for word in name.split()}


@cache
def letters(script: str) -> list[str]:
    """Return the letters of a script, by the first word of their Unicode names."""
    return [chr(code) for first, last in _LETTERS for code in range(first, last) if script_of(chr(code)) == script]


def _punctuated(word: str, rng: random.Random) -> str:
    if rng.random() < 0.06:
        word = str(rng.choice((rng.randint(1, 99), rng.randint(1500, 2030))))
    kind = rng.random()
    if kind > 0.97:
        return f"({word})"
    if kind > 0.95:
        return f"“{word}”"
    return word + ("," if kind < 0.1 else "." if kind < 0.16 else ";" if kind < 0.18 else "")


class Fonts:
    """The fonts below folders, by the first word of the family name."""

    def __init__(self, folders: list[Path]) -> None:
        self._families: dict[str, list[tuple[Path, frozenset[int]]]] = defaultdict(list)
        for file in sorted(
            file for folder in folders for kind in ("ttf", "otf", "ttc") for file in folder.rglob(f"*.{kind}")
        ):
            if not any(part in file.name for part in _NO_PRINT):
                font = pymupdf.Font(fontfile=str(file))
                self._families[font.name.split(" ")[0].split("-")[0]].append((file, frozenset(font.valid_codepoints())))

    def of(self, sample: str) -> dict[str, list[Path]]:
        """Return the fonts, by family, with nearly all letters of a sample."""
        needed = {ord(letter) for letter in sample if letter.isalpha()}
        fits = {
            family: [file for file, codes in fonts if len(needed & codes) >= 0.85 * len(needed)]
            for family, fonts in self._families.items()
        }
        return {family: files for family, files in fits.items() if files}


def draw(text: str, font: Path, size: int, rng: random.Random, noise: np.random.Generator) -> Pixels | None:
    """Return a simulated scan of a line as cropped by the detector, BGR; None if the font draws nothing."""
    face = ImageFont.truetype(str(font), size)
    left, top, right, bottom = map(int, face.getbbox(text))
    if min(right - left, bottom - top) < 6:
        return None
    paper, ink = rng.randint(180, 255), rng.randint(0, 90) if rng.random() < 0.8 else rng.randint(60, 130)
    image = Image.new("L", (right - left + 2 * size, bottom - top + 2 * size), paper)
    pen = ImageDraw.Draw(image)
    offsets = (0, -1.2, 1.2) if rng.random() < 0.15 else (0,)
    for offset in offsets:
        pen.text((size - left, size - top + offset * size), text, font=face, fill=ink)
    if rng.random() < 0.08:
        pen.line((0, size + bottom - top + 2, image.width, size + bottom - top + 2), fill=ink, width=2)
    pixels = np.asarray(image, dtype=np.float32)
    if rng.random() < 0.6:
        angle = rng.uniform(-1.2, 1.2) if right - left > 4 * size else rng.uniform(-3, 3)
        turn = cv2.getRotationMatrix2D((image.width / 2, image.height / 2), angle, 1)
        turn[0, 1] += rng.uniform(-0.05, 0.05)
        pixels = np.asarray(cv2.warpAffine(pixels, turn, image.size, borderValue=paper), dtype=np.float32)
    across = int(size * rng.uniform(0.5, 0.98))
    above, below = (int(size * rng.uniform(0.7, 0.97)) for _ in range(2))
    pixels = pixels[above : image.height - below, across : image.width - across]
    return _scanned(pixels, (paper + ink) / 2, size, rng, noise)


def _scanned(pixels: NDArray[Any], middle: float, size: int, rng: random.Random, noise: np.random.Generator) -> Pixels:
    if rng.random() < 0.5:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 1.2) * size / 40 + 0.2), dtype=np.float32)
    if rng.random() < 0.6:
        pixels = pixels + noise.normal(0, rng.uniform(1, 25), pixels.shape)
    if rng.random() < 0.25:
        pixels = np.where(pixels > middle + rng.uniform(-30, 20), 255.0, 0.0)
        if rng.random() < 0.5:
            change = cv2.erode if rng.random() < 0.5 else cv2.dilate
            pixels = np.asarray(change(pixels.astype(np.uint8), np.ones((2, 2), np.uint8)), dtype=np.float32)
    grey = np.clip(pixels, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        packed = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, rng.randint(25, 80)])[1]
        grey = np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
    if rng.random() < 0.04:
        grey = 255 - grey
    return np.repeat(grey[:, :, None], 3, axis=2)


def texture(rng: random.Random, noise: np.random.Generator) -> Pixels:
    """Return noise, clouds, hatching, dots or a scribble in the shape of a line, BGR."""
    height = rng.randint(20, 70)
    width = int(height * rng.uniform(1, 15))
    pixels: NDArray[Any] = np.full((height, width), 230, dtype=np.float32)
    kind = rng.randrange(5)
    if kind == 0:
        pixels = noise.normal(rng.randint(80, 230), rng.uniform(3, 60), pixels.shape).astype(np.float32)
    elif kind == 1:
        shape = height // rng.randint(3, 12) + 2, width // rng.randint(3, 12) + 2
        pixels = np.asarray(
            cv2.resize(noise.normal(160, 60, shape), (width, height), interpolation=cv2.INTER_CUBIC), np.float32
        )
    elif kind == 2:
        slope = rng.choice((0, height, height // 2))
        for x in range(-height, width + height, rng.randint(3, 9)):
            cv2.line(pixels, (x, 0), (x + slope, height), rng.randint(0, 90), 1)
    elif kind == 3:
        for _ in range(rng.randint(5, 60)):
            cv2.circle(
                pixels, (rng.randrange(width), rng.randrange(height)), rng.randint(1, 4), rng.randint(0, 120), -1
            )
    else:
        steps = noise.normal(0, 1, (rng.randint(20, 200), 2)) * (4, 5) + (1.2, 0)
        path = np.cumsum(steps, axis=0) + np.array((0, height / 2))
        cv2.polylines(pixels, [path.astype(np.int32)], False, 20, rng.randint(1, 3))
    grey = np.clip(pixels + noise.normal(0, rng.uniform(0, 8), pixels.shape), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def kinds() -> Iterator[tuple[str, str, int]]:
    """Yield the kinds of lines: class, script or kind, and weight of the number of lines."""
    names = {script.unicode: script.name for script in SCRIPTS.values() if script.unicode != "LATIN"}
    yield "Latin", "LATIN", 12
    yield "CJK", "CJK", 4
    yield "figures", "figures", 3
    yield "texture", "texture", 2
    yield "rotated", "rotated", 2
    yield "Vietnamese", "VIETNAMESE", 2
    yield "Latin with further marks", "MARKED", 2
    for script, name in names.items():
        yield name, script, 2 if script in ("CYRILLIC", "GREEK") else 1
