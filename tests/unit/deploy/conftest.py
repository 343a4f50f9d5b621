"""The chart of the repository, loaded once for each module."""

from __future__ import annotations

from collections.abc import Iterator

import helm_python
import pytest

from tests.unit.deploy.rendering import CHART


@pytest.fixture(scope="module")
def chart() -> Iterator[helm_python.Chart]:
    with helm_python.Chart.load(CHART) as chart:
        yield chart
