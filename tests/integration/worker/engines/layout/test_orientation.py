"""Rotated pages are read upright, with boxes of the page as it was given."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pymupdf
import pytest
from numpy.typing import NDArray

from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.settings import Settings
from worker import engines
from worker.engines.base import Recognition
from worker.imaging.page_image import PageImage

TEXT = (
    "The ferry left at nine.\n\nNobody was on board but the piano,\nand it had no ticket.\n\n"
    "The keeper wrote this down,\nas he wrote everything down."
)


@pytest.fixture(scope="module")
def page() -> NDArray[np.uint8]:
    document = pymupdf.open()
    sheet = document.new_page(width=300, height=420)
    sheet.insert_textbox((30, 40, 290, 400), TEXT, fontsize=14)
    drawn = sheet.get_pixmap(dpi=200)
    return np.frombuffer(drawn.samples, dtype=np.uint8).reshape(drawn.height, drawn.width, 3).copy()


def read(pixels: NDArray[np.uint8]) -> Recognition:
    async def once() -> Recognition:
        engine = engines.create(RAPIDOCR, Settings())
        await engine.start()
        try:
            image = PageImage(pixels=np.ascontiguousarray(pixels), width_pt=300, height_pt=420)
            return await engine.recognise(image, RAPIDOCR)
        finally:
            await engine.stop()

    return asyncio.run(once())


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_page_is_read_in_order_whichever_way_it_lies(page: NDArray[np.uint8], quarters: int) -> None:
    turned = np.rot90(page, quarters)
    recognition = read(turned)
    assert re.findall(r"\w+", recognition.text) == re.findall(r"\w+", TEXT)
    # Boxes are in the coordinates of the original page: each covers ink, and together nearly all ink
    ink = turned[:, :, 1] < 128
    covered = np.zeros_like(ink)
    for line in recognition.lines:
        x0, y0, x1, y1 = (round(value) for value in line.box)
        assert ink[y0:y1, x0:x1].any()
        covered[y0:y1, x0:x1] = True
    assert (ink & covered).sum() > 0.97 * ink.sum()
