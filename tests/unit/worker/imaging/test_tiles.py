"""An image is divided into overlapping tiles, and each line is returned once."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.imaging.tiles import Box, stitched, tiles


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(300, 1500), st.integers(0, 100))
def test_tiles_cover_all_and_overlap(width: int, height: int, side: int, overlap: int) -> None:
    found = tiles((0, 0, width, height), side=side, overlap=overlap)

    columns, rows = sorted({(x0, x1) for x0, _, x1, _ in found}), sorted({(y0, y1) for _, y0, _, y1 in found})
    for spans, length in ((columns, width), (rows, height)):
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(last - first <= side + 2 for first, last in spans)
        assert all(before[1] - after[0] >= overlap - 1 for before, after in itertools.pairwise(spans))


def line(x0: float, y0: float, x1: float, y1: float, angle: float = 0.0) -> NDArray[np.float64]:
    turn = math.radians(angle)
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)
    turned: NDArray[np.float64] = corners @ np.array(
        [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
    )
    return turned


def seen_in(tile: Box, quads: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Detections of upright lines in a tile: their parts within it."""
    x0, y0, x1, y1 = tile
    parts = [np.clip(quad, (x0, y0), (x1, y1)) for quad in quads]
    seen = [part for part in parts if np.ptp(part[:, 0]) > 5 and np.ptp(part[:, 1]) > 5]
    return np.array(seen).reshape(-1, 4, 2)


def test_lines_over_edges_come_out_once_and_whole() -> None:
    # Given lines of 30 pixels from edge to edge of an image of 3000 x 3000, cut into tiles of 1000
    quads = [line(10, 20 + 50 * number, 2990, 50 + 50 * number) for number in range(59)]
    cut = tiles((0, 0, 3000, 3000), side=1000, overlap=120)

    found = stitched([seen_in(tile, quads) for tile in cut])

    assert len(found) == len(quads)
    assert np.allclose(np.sort(found[:, 0, 1]), np.sort([quad[0, 1] for quad in quads]))
    assert np.allclose(np.ptp(found[:, :, 0], axis=1), 2980)


@pytest.mark.parametrize("angle", [-3.0, 0.0, 3.0])
def test_neighbouring_lines_stay_apart_when_the_page_is_skewed(angle: float) -> None:
    left = [line(0, 40 * number, 1100, 30 + 40 * number, angle) for number in range(20)]
    right = [line(1000, 40 * number, 2000, 30 + 40 * number, angle) for number in range(20)]

    assert len(stitched([np.array(left), np.array(right)])) == 20


def test_no_lines_in_tiles_give_no_lines() -> None:
    assert stitched([np.empty((0, 4, 2)), np.empty((0, 4, 2))]).shape == (0, 4, 2)
