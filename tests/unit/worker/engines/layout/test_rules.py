"""Printed rules are found in a page image, dark on light or light on dark."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from worker.engines.layout import rules

LINES = (
    "The harbour master wrote in the ledger",
    "that seven barges had left before dawn,",
    "carrying timber and apples.",
)


def printed(*, paper: int, ink: int) -> Any:
    """Draw a page (1200, 900, 3) of three lines, a rule across below them and one down beside them."""
    page = np.full((1200, 900, 3), paper, np.uint8)
    for number, line in enumerate(LINES):
        cv2.putText(page, line, (40, 100 + 60 * number), cv2.FONT_HERSHEY_COMPLEX, 1.1, (ink,) * 3, 2, cv2.LINE_AA)
    page[400:403, 40:800] = ink
    page[500:1100, 450:453] = ink
    return page


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255), (230, 60), (40, 200)])
def test_rules_are_found_and_letters_are_not(paper: int, ink: int) -> None:
    found = rules.find(printed(paper=paper, ink=ink))
    assert [box for box in found.across if box[1] < 380] == []
    assert len(found.across) == len(found.down) == 1
    assert found.across[0] == pytest.approx((40, 400, 800, 403), abs=4)
    assert found.down[0] == pytest.approx((450, 500, 453, 1100), abs=4)


def test_a_black_box_with_white_letters_has_no_rules() -> None:
    page = printed(paper=255, ink=0)
    page[40:260] = 255 - page[40:260]
    found = rules.find(page)
    assert [box for box in (*found.across, *found.down) if 60 < box[1] < 240] == []
