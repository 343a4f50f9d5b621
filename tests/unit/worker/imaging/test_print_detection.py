"""Print is distinguished from pictures, at all sizes at which pages are rendered."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worker.imaging.print_detection import Printed, printed

LONG_SIDES = [512, 640, 1024, 1280, 1684, 2500]
LINE = "The ferry left at nine, as it did every day"


def page(text: str, long_side: int, *, on: int = 250, ink: int = 20) -> NDArray[np.uint8]:
    """A page of A4 with a text of 11 points."""
    scale = long_side / 842
    image = Image.new("RGB", (round(595 * scale), long_side), (on,) * 3)
    font = ImageFont.load_default(11 * scale)
    ImageDraw.Draw(image).multiline_text((80 * scale, 90 * scale), text, fill=(ink,) * 3, font=font, spacing=6 * scale)
    return np.asarray(image).copy()


def in_rows(seen: Printed) -> int:
    return sum(row.marks for row in seen.rows) - seen.across


@pytest.mark.parametrize("long_side", LONG_SIDES)
def test_the_letters_of_print_stand_in_rows(long_side: int) -> None:
    # Given ten lines of 35 letters
    seen = printed(page("\n".join([LINE] * 10), long_side))

    # Then most of them are detected, in rows within the lines
    assert 100 <= in_rows(seen) <= 400
    assert 100 <= seen.letters <= 800
    y0, y1 = 90 * long_side / 842, (90 + 10 * 20) * long_side / 842
    assert all(y0 - 2 <= row.box[1] < row.box[3] <= y1 for row in seen.rows)


def test_upright_lines_have_their_rows_where_they_are() -> None:
    # Given a page, and the same turned by a quarter
    pixels = page("\n".join([LINE] * 10), 1280)
    lying, upright = printed(pixels), printed(np.ascontiguousarray(np.rot90(pixels, -1)))

    # Then the same share is detected on both, and on the right side of the rotated one
    assert in_rows(upright) == pytest.approx(in_rows(lying), rel=0.2)
    assert all(row.box[0] > 905 * 0.7 for row in upright.rows)


def test_light_print_on_dark_is_print() -> None:
    light = printed(page("\n".join([LINE] * 10), 1280, on=20, ink=240))

    assert in_rows(light) > 200


@pytest.mark.parametrize("long_side", LONG_SIDES)
def test_dots_of_a_form_are_no_print(long_side: int) -> None:
    pixels = page("", long_side)
    scale = long_side / 842
    for row in range(25):
        for dot in range(60):
            x, y = round((80 + 7 * dot) * scale), round((100 + 26 * row) * scale)
            pixels[y : y + round(3 * scale), x : x + round(3 * scale)] = 40

    assert in_rows(printed(pixels)) == 0


@pytest.mark.parametrize("number", [200, 1000, 3000])
def test_marks_in_any_places_stand_in_no_rows(number: int) -> None:
    # Given pieces of a letter's size all over a page
    chance = np.random.default_rng(number)
    pixels = page("", 1024)
    for y, x, height, width in zip(
        *chance.integers(0, 700, (2, number)), *chance.integers(4, 12, (2, number)), strict=True
    ):
        pixels[y : y + height, x : x + width] = 40

    # Then some do by chance, both ways, and not as many as on a page with two lines of print
    assert in_rows(printed(pixels)) < 40


def test_a_texture_has_strokes_and_no_rows() -> None:
    # Given every second pixel of every second row, which are more marks than 16 bits can number
    pixels = np.full((1024, 1024, 3), 255, np.uint8)
    pixels[::2, ::2] = 0

    assert printed(pixels) == Printed(letters=pytest.approx(512 * 512, rel=0.01), rows=(), across=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 3), (2500, 2500)])
def test_an_even_page_of_any_shape_has_nothing(shape: tuple[int, int]) -> None:
    assert printed(np.full((*shape, 3), 200, np.uint8)) == Printed(letters=0.0, rows=(), across=0)
