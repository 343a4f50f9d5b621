from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worker.imaging.ink import inked, is_blank, share, squares
from worker.imaging.page_image import PageImage

#: A5 at 150 dpi
HEIGHT, WIDTH = 1240, 874


def page(pixels: NDArray[np.float64] | NDArray[np.uint8]) -> PageImage:
    clipped = np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return PageImage(pixels=clipped, width_pt=clipped.shape[1] * 72 / 150, height_pt=clipped.shape[0] * 72 / 150)


def paper(*, grey: float = 255, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.float64]:
    return np.full((height, width, 3), grey, np.float64)


def noise(sigma: float) -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(0, sigma, (HEIGHT, WIDTH, 3))


def written(text: str, *, points: float, ink: tuple[int, int, int] = (0, 0, 0), on: int = 255) -> NDArray[np.float64]:
    """A page with a text in its middle, at 150 dpi."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (on, on, on))
    font = ImageFont.load_default(size=points * 150 / 72)
    ImageDraw.Draw(image).text((403, 611), text, fill=ink, font=font)
    return np.asarray(image).astype(np.float64)


@pytest.mark.parametrize("grey", [255, 235, 128, 0])
def test_an_even_page_is_blank(grey: int) -> None:
    assert is_blank(page(paper(grey=grey)))


@pytest.mark.parametrize("sigma", [2, 8])
def test_the_noise_of_a_scanner_on_off_white_paper_is_blank(sigma: float) -> None:
    tone = paper() - np.array([9, 16, 33])

    assert is_blank(page(tone + noise(sigma)))


@pytest.mark.parametrize("letter", ["a", "e", "o", "2", "M"])
def test_one_small_letter_is_not_blank(letter: str) -> None:
    # Given a page with one letter of 10 points, on the noise of a scanner
    pixels = written(letter, points=10) + noise(4)

    # Then the page is not blank
    assert not is_blank(page(pixels))


def test_one_narrow_letter_of_8_points_is_not_blank() -> None:
    # Given pages with one letter each, wherever its squares begin
    pages = {
        (letter, down, right): page(np.roll(written(letter, points=8), (down, right), axis=(0, 1)))
        for letter in "xrilt17I"
        for down in range(4)
        for right in range(4)
    }

    # Then none of the pages is blank
    assert [place for place, pixels in pages.items() if is_blank(pixels)] == []


def test_a_page_number_is_not_blank() -> None:
    assert not is_blank(page(written("17", points=9, ink=(90, 90, 90), on=240)))


def test_a_pencil_line_is_not_blank() -> None:
    pixels = paper(grey=240)
    pixels[600, 100:300] = 120

    assert not is_blank(page(pixels))


@pytest.mark.parametrize("ink", [(200, 0, 0), (0, 0, 200), (0, 110, 0), (255, 0, 255)])
def test_coloured_text_is_not_blank(ink: tuple[int, int, int]) -> None:
    assert not is_blank(page(written("Memorandum", points=12, ink=ink)))


@pytest.mark.parametrize(
    ("ink", "on"),
    [((0, 255, 0), 255), ((255, 0, 0), 0), ((60, 60, 255), 60)],
    ids=["green", "red on black", "blue on grey"],
)
def test_text_invisible_in_one_channel_is_not_blank(ink: tuple[int, int, int], on: int) -> None:
    assert not is_blank(page(written("Memorandum", points=24, ink=ink, on=on)))


def test_white_text_on_black_is_not_blank() -> None:
    assert not is_blank(page(written("negative", points=8, ink=(255, 255, 255), on=0)))


def test_uneven_light_goes_to_the_engine() -> None:
    # In doubt a page is not blank: from 255 on the left to 155 on the right
    pixels = paper() - np.linspace(0, 100, WIDTH)[None, :, None]

    assert not is_blank(page(pixels))


def test_one_speck_is_blank() -> None:
    pixels = paper()
    pixels[500:503, 400:403] = 0

    assert is_blank(page(pixels))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 3), (3, 500), (500, 3)])
def test_a_very_small_image_goes_to_the_engine(height: int, width: int) -> None:
    assert not is_blank(page(paper(height=height, width=width)))


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (1241, 877)])
def test_sizes_that_are_no_multiple_of_a_square_are_looked_at(height: int, width: int) -> None:
    assert is_blank(page(paper(height=height, width=width)))


def test_faint_text_is_not_blank() -> None:
    # Given text of grey 230 on white, which an engine reads well
    page = Image.new("RGB", (1000, 1400), "white")
    ImageDraw.Draw(page).text((100, 100), "barely visible", fill=(230, 230, 230), font=ImageFont.load_default(30))

    assert not is_blank(PageImage(pixels=np.asarray(page).copy(), width_pt=500, height_pt=700))


@pytest.mark.parametrize("colour", [(0, 0, 0), (200, 0, 0), (0, 255, 0), (0, 0, 255)])
def test_ink_is_the_share_of_squares_that_differ_from_the_paper(colour: tuple[int, int, int]) -> None:
    # Given a quarter of the page in one colour, whose edges are edges of squares
    pixels = paper(height=400, width=400)
    pixels[:200, :200] = colour

    # Then it is a quarter, in any channel
    assert share(page(pixels)) == pytest.approx(0.25)


def test_more_text_is_more_ink_and_noise_is_none() -> None:
    little, much = (share(page(written("line\n" * lines, points=9) + noise(4))) for lines in (2, 20))

    assert 0 < 5 * little < much < 0.1
    assert share(page(paper() + noise(8))) == 0


def test_the_ink_of_white_text_on_black_is_the_text() -> None:
    negative = share(page(written("negative", points=8, ink=(255, 255, 255), on=0)))

    assert negative == pytest.approx(share(page(written("negative", points=8))), rel=0.1)


def test_a_page_without_enough_ink_is_blank() -> None:
    # Given two squares of ink, and three
    two, three = paper(), paper()
    two[400:404, 400:408] = 0
    three[400:404, 400:412] = 0
    squares = (HEIGHT // 4) * (WIDTH // 4)

    # Then both measures agree on them
    assert (round(share(page(two)) * squares), is_blank(page(two))) == (2, True)
    assert (round(share(page(three)) * squares), is_blank(page(three))) == (3, False)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 500), (500, 3)])
def test_an_image_too_small_to_tell_has_no_ink(height: int, width: int) -> None:
    assert share(page(paper(grey=0, height=height, width=width))) == 0


@pytest.mark.parametrize("colour", [(0, 0, 0), (200, 0, 0), (0, 255, 0), (0, 0, 255)])
def test_where_the_ink_is_and_how_much_agree(colour: tuple[int, int, int]) -> None:
    # Given a quarter of a page that is no multiple of a square in one colour
    pixels = paper(height=403, width=402)
    pixels[:200, :200] = colour
    image = page(pixels)

    # Then only the squares there are inked, in any channel
    where = inked(image)
    assert where.shape == (100, 100)
    assert where[:50, :50].all()
    assert where.sum() == squares(image) == 2500


def test_a_page_smaller_than_a_square_has_no_squares() -> None:
    image = page(paper(grey=0, height=3, width=500))

    assert (inked(image).shape, squares(image)) == ((0, 125), 0)


def test_colours_that_need_not_be_looked_at_are_not() -> None:
    # Given little in green and more in red
    pixels = paper(height=400, width=400)
    pixels[:40, :40] = (255, 0, 255)
    pixels[200:, :, 0] = 0
    pixels[200:, :200, 0] = 255

    assert squares(page(pixels), enough=90) == 100
    assert squares(page(pixels)) > 100
