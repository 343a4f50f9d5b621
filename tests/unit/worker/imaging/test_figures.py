from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrfleet import keys
from ocrfleet.markdown.style import figures
from ocrfleet.records.pages import Block, Role
from ocrfleet.storage.store import FolderStore
from worker.imaging.figures import MAX_FIGURES, MAX_PIXELS, cut
from worker.imaging.page_image import PageImage

if TYPE_CHECKING:
    from pathlib import Path


def page_image(width: int = 400, height: int = 300) -> PageImage:
    """A white page with a red square at (100, 50) to (200, 150)."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[50:150, 100:200] = (255, 0, 0)
    return PageImage(pixels=pixels, width_pt=width / 2, height_pt=height / 2)


def figure(*boxes: tuple[float, float, float, float], **facts: Any) -> Block:
    return Block(label="image", role=Role.FIGURE, boxes=boxes, **facts)


def opened(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data))


def test_a_figure_is_what_the_page_shows_in_its_box() -> None:
    # Given a page with a text and a figure
    text = Block(label="text", role=Role.TEXT, boxes=((0, 0, 50, 50),), markdown="words")

    # When figures are cut out
    (same, found), pictures = cut(7, page_image(), (text, figure((100.2, 49.7, 199.8, 150.0))))

    # Then the picture is the red square, and the block has its name
    assert same == text
    ((name, data),) = pictures.items()
    assert found.figure == name
    picture = opened(data)
    assert (picture.format, picture.size) == ("JPEG", (100, 100))
    red, green, blue = np.asarray(picture).reshape(-1, 3).mean(axis=0)
    assert (red > 250, green < 5, blue < 5) == (True, True, True)


def test_a_name_is_a_key_and_the_readers_of_markdown_know_it(tmp_path: Path) -> None:
    _, pictures = cut(123456, page_image(), (figure((0, 0, 300, 300)),))
    (name,) = pictures

    FolderStore(tmp_path).put(keys.figure("0" * 32, name), b"x")
    assert name.startswith("123456-01-")
    assert list(figures([f"![a \\] b](figures/{'0' * 32}/{name})"])) == [name]


def test_the_same_page_gives_the_same_pictures_and_other_boxes_give_other_names() -> None:
    one = cut(1, page_image(), (figure((100, 50, 200, 150)),))

    assert one == cut(1, page_image(), (figure((100, 50, 200, 150)),))
    assert one[1].keys().isdisjoint(cut(1, page_image(), (figure((100, 50, 200, 160)),))[1])


def test_a_figure_in_two_places_is_two_blocks() -> None:
    (first, second), pictures = cut(1, page_image(), (figure((0, 0, 90, 90), (100, 50, 200, 150), markdown="words"),))

    assert (first.boxes, first.markdown, second.boxes, second.markdown) == (
        ((0, 0, 90, 90),),
        "words",
        ((100, 50, 200, 150),),
        "",
    )
    assert [first.figure, second.figure] == list(pictures)


@pytest.mark.parametrize("box", [(0, 0, 10, 200), (500, 500, 700, 700), (-50, -50, 10, 10), (390, 0, 2000, 300)])
def test_a_figure_too_small_or_outside_of_the_page_has_no_picture(
    box: tuple[float, float, float, float],
) -> None:
    (found,), pictures = cut(1, page_image(), (figure(box, markdown="words"),))

    assert (found.figure, found.markdown, found.boxes, pictures) == (None, "words", (box,), {})


def test_a_box_that_leaves_the_page_is_clipped() -> None:
    _, pictures = cut(1, page_image(), (figure((300, 200, 900, 900)),))

    assert [opened(data).size for data in pictures.values()] == [(100, 100)]


def test_a_figure_without_a_box_stays_as_it_is() -> None:
    assert cut(1, page_image(), (figure(markdown="words"),)) == ((figure(markdown="words"),), {})


def test_a_model_that_repeats_a_figure_gives_one_picture() -> None:
    blocks, pictures = cut(1, page_image(), (figure((0, 0, 300, 300)),) * 500)

    assert {block.figure for block in blocks} == set(pictures)
    assert len(pictures) == 1


def test_a_page_has_a_bounded_number_of_pictures() -> None:
    boxes = [(float(x), float(y), x + 24.0, y + 24.0) for x in range(0, 360, 20) for y in range(0, 260, 20)]

    blocks, pictures = cut(1, page_image(), tuple(figure(box) for box in boxes))

    assert len(pictures) == MAX_FIGURES
    assert len(blocks) == len(boxes)


def test_pictures_cover_the_page_a_bounded_number_of_times() -> None:
    _, pictures = cut(1, page_image(), tuple(figure((0, 0, 400, 300 - number)) for number in range(20)))

    assert len(pictures) == 2


def test_the_largest_picture_is_scaled_down() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (3000, 4000, 3), np.uint8)

    _, pictures = cut(1, PageImage(pixels=noise, width_pt=1, height_pt=1), (figure((0, 0, 4000, 3000)),))

    (data,) = pictures.values()
    width, height = opened(data).size
    assert width * height <= MAX_PIXELS
    assert abs(width / height - 4 / 3) < 0.01
    assert len(data) < 10_000_000


numbers = st.floats(-1e9, 1e9)


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Role)), st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=3))
    )
)
@settings(deadline=None)
def test_whatever_boxes_there_are_no_text_is_lost(
    parts: list[tuple[Role, list[tuple[float, float, float, float]]]],
) -> None:
    blocks = tuple(
        Block(label="x", role=role, boxes=tuple(boxes), markdown=f"text {number}")
        for number, (role, boxes) in enumerate(parts)
    )

    found, pictures = cut(1, page_image(), blocks)

    assert [block.markdown for block in found if block.markdown] == [block.markdown for block in blocks]
    assert {block.figure for block in found if block.figure} == set(pictures)
