"""Marks on a page image, and those outside of detected lines."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worker.imaging.marks import find_marks
from worker.imaging.unread_ink import patches, print_marks, unread

LINE = "The ferry left at nine, as it did every day"
NO_LINES = np.empty((0, 4, 2))


def page(*texts: tuple[int, int, str], ink: int = 20, paper: int = 250) -> NDArray[np.uint8]:
    """A page of 1250 x 1768 pixels, 150 dpi, with texts of 12 points."""
    sheet = Image.new("L", (1250, 1768), paper)
    for x, y, text in texts:
        ImageDraw.Draw(sheet).text((x, y), text, fill=ink, font=ImageFont.load_default(25))
    drawn: NDArray[np.uint8] = np.array(sheet)
    return drawn


def box(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float64]:
    return np.array([[(x0, y0), (x1, y0), (x1, y1), (x0, y1)]], np.float64)


def texture() -> NDArray[np.uint8]:
    grain = np.random.default_rng(1).normal(0, 1, (221, 157)).astype(np.float32)
    drawn: NDArray[np.uint8] = np.clip(150 + 60 * np.kron(grain, np.ones((8, 8))), 0, 255).astype(np.uint8)
    return drawn


@pytest.mark.parametrize("quarters", [0, 1])
def test_letters_are_as_high_as_they_are_printed_upright_or_lying(quarters: int) -> None:
    grey = np.ascontiguousarray(np.rot90(page(*((100, 100 + 60 * row, LINE) for row in range(10))), quarters))

    marks = find_marks(grey)

    assert 10 < marks.letter_height < 18
    assert (marks.beside.mean() > 0.6, marks.above.mean() > 0.6) == (quarters == 0, quarters == 1)


def test_light_on_dark_is_found_as_well() -> None:
    dark, light = find_marks(page((100, 100, LINE))), find_marks(page((100, 100, LINE), ink=240, paper=30))

    assert abs(len(dark) - len(light)) <= 2


def test_marks_inside_a_line_are_not_searched_again() -> None:
    grey = page((100, 100, LINE), (600, 1600, "213"))

    rest = unread(find_marks(grey), box(95, 95, 640, 135))

    (patch,) = patches(rest, grey.shape)
    assert patch.in_rows
    assert patch.marks == 3
    x0, y0, x1, y1 = patch.box
    assert 590 < x0 < x1 < 660
    assert 1590 < y0 < y1 < 1640


def test_much_fainter_marks_are_ignored() -> None:
    grey = page((100, 100, LINE))
    grey = np.minimum(grey, page((600, 1600, "213"), ink=225))

    assert len(find_marks(grey)) > len(find_marks(page((100, 100, LINE))))
    assert len(unread(find_marks(grey), box(95, 95, 640, 135))) == 0
    assert len(unread(find_marks(page((600, 1600, "213"), ink=225)), NO_LINES)) == 3


def test_a_texture_stands_in_no_rows() -> None:
    grey = texture()

    assert not any(patch.in_rows for patch in patches(find_marks(grey), grey.shape) if patch.marks > 12)
    assert print_marks(find_marks(grey), grey.shape) == 0


def test_a_word_among_specks_is_print() -> None:
    grey = page((600, 800, "Preface"))
    for y, x in np.random.default_rng(2).integers(20, 1200, (60, 2)):
        grey[y : y + 3, x : x + 3] = 0

    assert print_marks(find_marks(grey), grey.shape) >= 3


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (2000, 2)])
def test_images_of_any_shape_have_marks_or_none(shape: tuple[int, int]) -> None:
    grey = np.full(shape, 255, np.uint8)

    assert patches(find_marks(grey), shape) == []
