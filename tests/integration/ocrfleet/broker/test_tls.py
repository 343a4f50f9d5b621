"""Redis behind TLS and a password: rediss:// for all that we send, by kombu and by redis-py, with certificates verified."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme

from ocrfleet.broker.celery_app import make_app, publish_assembly
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import TransientError
from ocrfleet.records.documents import DocumentStatus
from ocrfleet.settings import Settings
from tests.support.servers import lacking
from tests.support.stage import Stage
from tests.support.waiting import until

PASSWORD = "a secret of this test"  # noqa: S105 - it guards nothing


class TlsRedis:
    """Debian's redis-server: the embedded Valkey knows no TLS."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server") or lacking("redis-server (make system-deps)")
        authority, stranger = trustme.CA(), trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        stranger.cert_pem.write_to_path(folder / "stranger.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._address = f"rediss://:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/0"
        self.url = self.trusting(folder / "ca.pem")
        self.stranger = self.trusting(folder / "stranger.pem")
        self.process = subprocess.Popen(
            [
                *(str(program), "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", ""),
                *("--tls-cert-file", str(folder / "cert.pem"), "--tls-key-file", str(folder / "key.pem")),
                *("--tls-ca-cert-file", str(folder / "ca.pem"), "--tls-auth-clients", "no"),
                *("--requirepass", PASSWORD, "--dir", str(folder)),
            ],
            stdout=subprocess.DEVNULL,
        )
        self.client: redis.Redis = redis.Redis.from_url(self.url)
        until(self._is_ready, otherwise=lambda: "redis-server does not start")

    def _is_ready(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def trusting(self, authority: Path) -> str:
        return f"{self._address}?ssl_ca_certs={authority}"

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[TlsRedis]:
    server = TlsRedis(tmp_path)
    yield server
    server.close()


def test_a_document_is_read_by_way_of_a_redis_behind_tls(tmp_path: Path, tls: TlsRedis) -> None:
    stage = Stage(tmp_path, tls)  # type: ignore[arg-type]
    try:
        (status,) = stage.finish(stage.register("a", [1, 2, 3]), workers=1)
        assert status.status is DocumentStatus.COMPLETED
    finally:
        stage.close()


def test_an_untrusted_redis_certificate_is_refused(tls: TlsRedis) -> None:
    settings = Settings(redis_url=tls.stranger)
    with pytest.raises(TransientError, match="CERTIFICATE_VERIFY_FAILED"):
        publish_assembly(make_app(settings), "0" * 32, 1)
    with pytest.raises(TransientError, match="CERTIFICATE_VERIFY_FAILED"):
        Ledger(settings.redis_url.get_secret_value()).workers()
    assert tls.client.keys() == []
