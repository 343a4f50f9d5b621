from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import Moto, Valkey
from tests.support.stage import Stage


@pytest.fixture
def stage(tmp_path: Path, valkey: Valkey) -> Iterator[Stage]:
    made = Stage(tmp_path, valkey)
    yield made
    made.close()


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Moto]:
    server = Moto()
    yield server
    server.close()


@pytest.fixture
def moto(moto_server: Moto, monkeypatch: pytest.MonkeyPatch) -> Moto:
    """AWS simulated by moto, with credentials in the environment of boto3."""
    for name, value in moto_server.environment.items():
        monkeypatch.setenv(name, value)
    return moto_server
