"""Drawn A4 pages with no text or very little, at any long side in pixels."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worker.imaging.page_image import PageImage

if TYPE_CHECKING:
    from numpy.typing import NDArray


def page_of(pixels: NDArray[np.uint8]) -> PageImage:
    return PageImage(pixels=np.ascontiguousarray(pixels), width_pt=pixels.shape[1], height_pt=pixels.shape[0])


def canvas(side: int) -> NDArray[np.uint8]:
    return np.full((side, round(side / 2**0.5), 3), 244, np.uint8)


def drawing(draw: Callable[[ImageDraw.ImageDraw, float], None]) -> Callable[[int], NDArray[np.uint8]]:
    """Canvas of 595 x 842 points with a given number of pixels per point."""

    def drawn(side: int) -> NDArray[np.uint8]:
        image = Image.fromarray(canvas(side * 2))
        draw(ImageDraw.Draw(image), side * 2 / 842)
        return np.asarray(image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX))

    return drawn


def written(text: str, x: float, y: float, points: float) -> Callable[[int], NDArray[np.uint8]]:
    def draw(on: ImageDraw.ImageDraw, scale: float) -> None:
        on.text((x * scale, y * scale), text, fill=(30, 30, 30), font=ImageFont.load_default(points * scale))

    return drawing(draw)


def _grey(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.repeat(np.clip(values, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def noise(side: int) -> NDArray[np.uint8]:
    return _grey(np.random.default_rng(5).normal(190, 45, (side, round(side / 2**0.5))))


def static(side: int) -> NDArray[np.uint8]:
    return _grey(np.random.default_rng(8).uniform(0, 256, (side, round(side / 2**0.5))))


def film_grain(side: int) -> NDArray[np.uint8]:
    """Draw on a gradient from light at the top to dark at the bottom."""
    grain = np.random.default_rng(9).normal(0, 12, (side, round(side / 2**0.5)))
    return _grey(np.linspace(230, 60, side)[:, None] + cv2.GaussianBlur(grain, (0, 0), 0.7) * 2)


def blurred_noise(side: int) -> NDArray[np.uint8]:
    """Spots of the size of letters: of all noises, the most similar to rows of text."""
    grain = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 1, (side, round(side / 2**0.5))), (0, 0), 2)
    return _grey(200 + 30 * grain / grain.std())


def clouds(side: int) -> NDArray[np.uint8]:
    """An abstract picture with edges of all sizes."""
    random_ = np.random.default_rng(6)
    shape = side, round(side / 2**0.5)
    total = np.zeros(shape, np.float32)
    for octave in range(2, 9):
        grain = random_.normal(0, 1, (2**octave, 2**octave)).astype(np.float32)
        total += cv2.resize(grain, shape[::-1], interpolation=cv2.INTER_CUBIC) * 0.75**octave
    scaled = np.clip(128 + 60 * total / total.std(), 0, 255).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)


def gradient(side: int) -> NDArray[np.uint8]:
    page = canvas(side)
    page[:] = np.linspace(250, 60, page.shape[1])[None, :, None]
    return page


def halftone(side: int) -> NDArray[np.uint8]:
    """A coarse halftone of 25 lines per inch over most of the page."""
    page = canvas(side)
    y, x = np.mgrid[: page.shape[0], : page.shape[1]] * (842 / side * 25 / 72 * 2 * np.pi)
    tone = 0.5 + 0.5 * np.sin(x / 60) * np.sin(y / 45)
    page[(np.cos(x) + np.cos(y)) / 4 + 0.5 < tone] = 30
    return page


def shadow(side: int) -> NDArray[np.uint8]:
    """Shadows of a binding and of the edge of a scanner."""
    page = canvas(side).astype(np.float32)
    across = np.arange(page.shape[1]) / page.shape[1]
    page *= (1 - 0.85 * np.exp(-across / 0.04))[None, :, None]
    page[-side // 40 :] = 20
    return (page + np.random.default_rng(7).normal(0, 3, page.shape)).clip(0, 255).astype(np.uint8)


def _stain(on: ImageDraw.ImageDraw, scale: float) -> None:
    for ring in range(40):
        shade = 235 - 3 * ring
        on.ellipse(
            [(200 + ring) * scale, (300 + ring) * scale, (330 - ring) * scale, (410 - ring) * scale], fill=(shade,) * 3
        )


def _stamp(on: ImageDraw.ImageDraw, scale: float) -> None:
    blue, font = (60, 60, 150), ImageFont.load_default(11 * scale)
    on.rectangle([380 * scale, 60 * scale, 520 * scale, 120 * scale], outline=blue, width=round(2 * scale))
    on.multiline_text((390 * scale, 68 * scale), "COUNTY ARCHIVE\nReceived\n12 MAR 1931", fill=blue, font=font)


def _rule(on: ImageDraw.ImageDraw, scale: float) -> None:
    on.line([80 * scale, 420 * scale, 515 * scale, 420 * scale], fill=(40, 40, 40), width=max(1, round(scale)))


def _specks(on: ImageDraw.ImageDraw, scale: float) -> None:
    chance = random.Random(3)  # noqa: S311 - a drawing
    for _ in range(40):
        x, y, size = chance.uniform(20, 570), chance.uniform(20, 820), chance.uniform(0.6, 1.6)
        on.ellipse([x * scale, y * scale, (x + size) * scale, (y + size) * scale], fill=(50, 45, 40))


def _hatching(on: ImageDraw.ImageDraw, scale: float) -> None:
    chance = random.Random(4)  # noqa: S311 - a drawing
    for row in range(60):
        for column in range(45):
            x, y = 60 + 10.5 * column + chance.uniform(-2, 2), 80 + 11 * row + chance.uniform(-2, 2)
            length = chance.uniform(4, 14)
            on.line(
                [x * scale, y * scale, (x + length) * scale, (y - length) * scale],
                fill=(40, 40, 40),
                width=round(scale),
            )


def _curves(on: ImageDraw.ImageDraw, scale: float) -> None:
    chance = random.Random(9)  # noqa: S311 - a drawing
    for _ in range(160):
        x, y, wide, high = (
            chance.uniform(40, 480),
            chance.uniform(40, 720),
            chance.uniform(8, 90),
            chance.uniform(8, 90),
        )
        box = [x * scale, y * scale, (x + wide) * scale, (y + high) * scale]
        begin = chance.uniform(0, 360)
        on.arc(box, begin, begin + chance.uniform(60, 300), fill=(40, 40, 40), width=max(1, round(0.8 * scale)))


def _dotted(on: ImageDraw.ImageDraw, scale: float) -> None:
    for row in range(26):
        for dot in range(70):
            x, y = 80 + 6.2 * dot, 110 + 25 * row
            on.rectangle([x * scale, y * scale, (x + 2.8) * scale, (y + 2.5) * scale], fill=(60, 60, 60))


def _fine_dots(on: ImageDraw.ImageDraw, scale: float) -> None:
    for row in range(26):
        for dot in range(130):
            x, y = 80 + 3.24 * dot, 110 + 25.3 * row
            on.rectangle([x * scale, y * scale, (x + 1.8) * scale, (y + 2) * scale], fill=(60, 60, 60))


def _ruled(on: ImageDraw.ImageDraw, scale: float) -> None:
    for row in range(30):
        y = 90 + 24 * row
        on.line([60 * scale, y * scale, 535 * scale, y * scale], fill=(120, 140, 200), width=max(1, round(0.7 * scale)))
    for column in range(6):
        x = 60 + 95 * column
        on.line([x * scale, 90 * scale, x * scale, 786 * scale], fill=(120, 140, 200), width=max(1, round(0.7 * scale)))


NEARLY_BLANK = {
    "a page number": written("17", 290, 790, 10),
    "a letter": written("B", 290, 60, 12),
    "a running title": written("THE HARBOUR IN WINTER     212", 200, 40, 9),
    "a stamp": drawing(_stamp),
    "a stain": drawing(_stain),
    "a rule": drawing(_rule),
    "specks": drawing(_specks),
}
NOTHING_TO_READ = {
    "gradient": gradient,
    "noise": noise,
    "static": static,
    "film grain": film_grain,
    "blurred noise": blurred_noise,
    "clouds": clouds,
    "halftone": halftone,
    "shadow": shadow,
    "a stain": drawing(_stain),
    "specks": drawing(_specks),
    "a rule": drawing(_rule),
    "hatching": drawing(_hatching),
    "curves": drawing(_curves),
    "dotted lines": drawing(_dotted),
    "fine dotted lines": drawing(_fine_dots),
    "a ledger without entries": drawing(_ruled),
}


@functools.cache
def drawn(draw: Callable[[int], NDArray[np.uint8]], side: int) -> PageImage:
    return page_of(draw(side))
