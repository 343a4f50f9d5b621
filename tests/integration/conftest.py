from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Valkey
from stage import Stage


@pytest.fixture
def stage(tmp_path: Path, valkey: Valkey) -> Iterator[Stage]:
    made = Stage(tmp_path, valkey)
    yield made
    made.close()
