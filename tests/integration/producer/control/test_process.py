"""The control plane with its child processes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ocrfleet.errors import ConfigurationError
from ocrfleet.metrics.exposition import Exposition
from ocrfleet.settings import Settings
from ocrfleet.storage.open import open_store
from producer.control.process import control_plane
from producer.intake import consumer
from tests.support.servers import Valkey
from tests.support.waiting import scaled


def test_a_misconfigured_intake_consumer_ends_its_owner_with_an_error(
    tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given intake consumers that exit with 78 (misconfigured)
    starts = tmp_path / "starts"
    monkeypatch.setattr(consumer, "COMMAND", ["/bin/sh", "-c", f'echo >> "{starts}"; exit 78'])
    settings = Settings(store=str(tmp_path / "store"), redis_url=valkey.url)
    failed = threading.Event()
    # When a control plane runs with one of them
    with (
        pytest.raises(ConfigurationError, match="intake-consumer-0 can't start"),
        control_plane(
            settings, open_store(settings), consumers=1, exposition=Exposition(settings), on_failure=failed.set
        ),
    ):
        # Then it requests the end of its owner
        assert failed.wait(scaled(60))
    # And it did not start it again
    assert starts.read_text() == "\n"
