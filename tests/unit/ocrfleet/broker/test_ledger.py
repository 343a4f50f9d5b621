"""The ledger's connection: an invalid URL is an error of the configuration, without the password in it."""

from __future__ import annotations

import pytest

from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import ConfigurationError


@pytest.mark.parametrize("url", ["", "localhost", "http://:secret@localhost", "redis://:secret@localhost:port/0"])
def test_an_invalid_redis_url_names_the_setting_and_not_its_value(url: str) -> None:
    with pytest.raises(ConfigurationError, match="OCRFLEET_REDIS_URL") as raised:
        Ledger(url)

    assert "secret" not in str(raised.value)
