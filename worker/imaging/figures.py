"""Cuts the pictures that a model found out of the page image, as JPEGs."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import PIL.Image

from ocrfleet.records.pages import Role

if TYPE_CHECKING:
    from ocrfleet.records.pages import Block
    from worker.imaging.page_image import PageImage

    Box = tuple[int, int, int, int]

#: The most pictures of a page. The output for a hostile page, or in a loop, may have any number.
MAX_FIGURES = 40
#: The largest area of all pictures, in pages: pictures rarely overlap, and each takes time and space.
MAX_COVER = 2.0
#: The fewest pixels of each side: a smaller figure is an ornament or an error.
MIN_SIDE = 24
#: The most pixels of a picture; a larger one is scaled down. With pure noise that is 9 MB, with print less than 2.
MAX_PIXELS = 6_000_000
#: JPEG, because pages are scans: for photographed and grey pages a PNG is four to six times as large and takes fifty times as
#: long; for drawn ones it is as large and takes ten times as long (crops of a megapixel: 3 ms). Colours are not subsampled,
#: so that coloured lines and letters stay sharp.
QUALITY = 90


def cut(page: int, image: PageImage, blocks: tuple[Block, ...]) -> tuple[tuple[Block, ...], dict[str, bytes]]:
    """Return the blocks with the names of their pictures, and the pictures by name.

    A figure with several boxes becomes a block for each, the first with the text. A figure that is too small, or beyond the
    limits, stays a block without a picture. A name has the page, a number and a digest of the content, so that another
    attempt at the page, with other boxes, overwrites nothing. The same image and boxes give the same names and bytes.
    """
    found: list[Block] = []
    pictures: dict[str, bytes] = {}
    names: dict[Box, str] = {}
    budget = MAX_COVER * image.width * image.height
    for block in blocks:
        if block.role is not Role.FIGURE or not block.boxes:
            found.append(block)
            continue
        for number, place in enumerate(block.boxes):
            box = _within(place, image)
            area = (box[2] - box[0]) * (box[3] - box[1])
            if box not in names and _large_enough(box) and len(names) < MAX_FIGURES and area <= budget:
                budget -= area
                data = _encode(image, box)
                names[box] = f"{page:06d}-{len(names) + 1:02d}-{hashlib.sha256(data).hexdigest()[:12]}.jpg"
                pictures[names[box]] = data
            changes = {"boxes": (place,), "markdown": "" if number else block.markdown, "figure": names.get(box)}
            found.append(block.model_copy(update=changes))
    return tuple(found), pictures


def _within(box: tuple[float, float, float, float], image: PageImage) -> Box:
    """Return a box in whole pixels, clipped to the image; it may be empty."""
    x0, y0, x1, y1 = box
    left, top = max(0, round(x0)), max(0, round(y0))
    return left, top, max(left, min(image.width, round(x1))), max(top, min(image.height, round(y1)))


def _large_enough(box: Box) -> bool:
    x0, y0, x1, y1 = box
    return min(x1 - x0, y1 - y0) >= MIN_SIDE


def _encode(image: PageImage, box: Box) -> bytes:
    x0, y0, x1, y1 = box
    picture = PIL.Image.fromarray(image.pixels[y0:y1, x0:x1])
    pixels = picture.width * picture.height
    if pixels > MAX_PIXELS:
        scale = (MAX_PIXELS / pixels) ** 0.5
        size = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
        picture = picture.resize(size, PIL.Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()
