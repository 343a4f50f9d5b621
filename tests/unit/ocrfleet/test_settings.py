"""Settings that hold secrets: they are shown nowhere, neither whole nor in part, right or wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from kombu.connection import Connection
from pydantic import SecretStr, ValidationError
from redis.sentinel import SentinelConnectionPool

from ocrfleet.broker.celery_app import make_app
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import ConfigurationError
from ocrfleet.redis_url import checked
from ocrfleet.settings import ApiSettings, OpenAiSettings, Settings, describe

#: Passwords that are not percent-encoded, and other mistakes: redis-py took the first part of the password for the host or the
#: port, and named it in its errors.
WRONG = [
    *(f"redis://:zebra{sign}quagga@127.0.0.1:1/0" for sign in "/#?@[] "),
    *(f"redis://:4242{sign}quagga@127.0.0.1:1/0" for sign in "/#?@"),
    "redis://zebra/quagga@127.0.0.1",
    "redis://:x?quagga=1@127.0.0.1",
    "redis://127.0.0.1:1/0?password=quagga",
    "redis://127.0.0.1:1/quagga",
    "redis://:quagga@/0",
    "redis://:quagga@127.0.0.1:zebra/0",
    "http://:quagga@127.0.0.1",
    "quagga",
    "",
    "unix://quagga",
    "unix:///socket?password=quagga",
    "rediss://:quagga@127.0.0.1/0?ssl_cert_reqs=none",
    "sentinel://:quagga@127.0.0.1:26379/0",
    "sentinel://:quagga@127.0.0.1:26379/0?master=",
    "sentinel://:quagga@127.0.0.1/0?master=zebra",
    "sentinel://:quagga@127.0.0.1:99999/0?master=zebra",
    "sentinel://:quagga@127.0.0.1:26379,/0?master=zebra",
    "sentinel://:quag;ga@127.0.0.1:26379/0?master=zebra",
    "sentinel://:quagga@127.0.0.1:26379/0?master=zebra&master=zebra",
    "sentinel://:quagga@127.0.0.1:26379/0?master=zebra&password=4242",
]
RIGHT = [
    "redis://127.0.0.1:6379/0",
    "redis://localhost",
    "redis://user:pa%2Fss%23w@redis.example:6380/3",
    "redis://:secret@[::1]:6379/1",
    "rediss://:secret@redis/0?ssl_ca_certs=/etc/redis/ca.pem",
]


@pytest.mark.parametrize("url", WRONG)
def test_a_wrong_redis_url_is_refused_without_a_part_of_it(url: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Settings(redis_url=url)

    with pytest.raises(ConfigurationError, match="OCRFLEET_REDIS_URL") as refused:
        Ledger(url)
    assert "OCRFLEET_REDIS_URL" in describe(raised.value)
    told = describe(raised.value) + "".join(traceback.format_exception_only(raised.value)) + str(refused.value)
    assert not re.search("zebra|quagga|4242", told)


@pytest.mark.parametrize("url", RIGHT)
def test_redis_py_and_kombu_read_a_redis_url_in_the_same_way(url: str) -> None:
    ours = redis.Redis.from_url(checked(url)).get_connection_kwargs()
    with make_app(Settings(redis_url=SecretStr(url))).connection_for_write() as connection:
        assert isinstance(connection, Connection)
        assert (connection.hostname, connection.port or 6379) == (ours["host"], ours.get("port", 6379))
        assert (connection.userid or None, connection.password or None) == (ours.get("username"), ours.get("password"))
        assert int((connection.virtual_host or "0").strip("/") or 0) == ours.get("db", 0)


def test_redis_py_and_kombu_read_a_sentinel_url_in_the_same_way() -> None:
    url = "sentinel://fleet:pa%2Fss%23w@one.example:26379,two.example:26380/3?master=ocr&sentinel_password=s%26w"
    pool = Ledger(url).redis.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    ours = pool.connection_kwargs
    with make_app(Settings(redis_url=SecretStr(url))).connection_for_write() as connection:
        assert (connection.userid, connection.password) == (ours["username"], ours["password"]) == ("fleet", "pa/ss#w")
        assert int(connection.virtual_host) == ours["db"] == 3
        assert connection.transport_options["master_name"] == pool.service_name == "ocr"
        asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
        assert [(one["host"], one["port"]) for one in asked] == [("one.example", 26379), ("two.example", 26380)]
        assert [urlsplit(one).netloc.rpartition("@")[2] for one in connection.alt] == [
            "one.example:26379",
            "two.example:26380",
        ]
        own = connection.transport_options["sentinel_kwargs"]["password"]
        assert {one["password"] for one in asked} == {own} == {"s&w"}
        assert "ss#w" not in connection.as_uri() + repr(connection)


def test_no_secret_is_in_what_is_printed_of_the_settings() -> None:
    settings = Settings(
        redis_url=SecretStr("redis://:hidden@redis/0"),
        webhook_secret=SecretStr("hidden"),
        api=ApiSettings(tokens=SecretStr("hidden"), event_token=SecretStr("hidden")),
        openai=OpenAiSettings(api_key=SecretStr("hidden"), base_url=SecretStr("http://user:hidden@models/v1")),
    )

    assert "hidden" not in repr(settings) + str(settings) + settings.model_dump_json()
    # And not in the error of another setting
    with pytest.raises(ValidationError) as raised:
        Settings(lease_seconds="hidden", openai={"api_key": "hidden", "concurrency": "hidden"})
    assert "hidden" not in str(raised.value)


def test_no_command_prints_a_part_of_a_wrong_redis_url(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "OCRFLEET_REDIS_URL": "redis://:4242#word@127.0.0.1:1/0",
        "OCRFLEET_STORE": str(tmp_path),
    }
    command = [str(Path(sys.executable).with_name("ocrfleet")), "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "OCRFLEET_REDIS_URL" in done.stderr
    assert "4242" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
