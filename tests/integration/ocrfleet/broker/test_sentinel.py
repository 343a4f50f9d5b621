"""Redis by three sentinels, with users and their rights: the master dies under load, another takes over, nothing is lost."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ocrfleet.records.documents import DocumentStatus
from tests.support.servers import free_ports, lacking
from tests.support.stage import Stage
from tests.support.waiting import scaled, until

PASSWORD, SERVERS_OWN, SENTINELS_OWN = "fleet-word", "server-word", "sentinel-word"
#: What a user of the fleet needs: docs/howto/redis.md.
RIGHTS = "~* &* +@all -@admin -@dangerous +info"


class SentinelRedis:
    """A master, a replica of it, and three sentinels: Debian's redis-server in both roles."""

    def __init__(self, folder: Path) -> None:
        self._program = str(shutil.which("redis-server") or lacking("redis-server (make system-deps)"))
        self._folder = folder
        self._clients: dict[int, redis.Redis] = {}
        self._asked: list[redis.Redis] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        folder = self._folder
        *servers, first, second, third = free_ports(5)
        (folder / "users.acl").write_text(
            f"user default on >{SERVERS_OWN} ~* &* +@all\nuser fleet on >{PASSWORD} {RIGHTS}\n"
        )
        self.servers = {port: self._server(port, servers[0]) for port in servers}
        self._clients = {port: redis.Redis(port=port, password=SERVERS_OWN) for port in servers}
        until(lambda: all(map(self._answers, servers)), otherwise=lambda: "redis-server does not start")
        replica = self._clients[servers[1]]
        until(lambda: replica.info("replication")["master_link_status"] == "up", otherwise=lambda: "no replication")
        for port in (first, second, third):
            self._sentinel(port, servers[0])
            self._asked.append(redis.Redis(port=port, password=SENTINELS_OWN))
        until(lambda: all(map(self._sees_all, self._asked)), otherwise=lambda: "the sentinels do not see each other")
        hosts = ",".join(f"127.0.0.1:{port}" for port in (first, second, third))
        self.url = f"sentinel://fleet:{PASSWORD}@{hosts}/0?master=ocr&sentinel_password={SENTINELS_OWN}"

    def _server(self, port: int, master: int) -> subprocess.Popen[bytes]:
        folder = self._folder / str(port)
        folder.mkdir()
        options = [
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
            "--repl-diskless-sync-delay",
            "0",
        ]
        options += ["--aclfile", str(self._folder / "users.acl"), "--masterauth", SERVERS_OWN]
        options += ["--replicaof", f"127.0.0.1 {master}"] if port != master else []
        return self._run(*options)

    def _sentinel(self, port: int, master: int) -> None:
        file = self._folder / f"sentinel-{port}.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\nrequirepass {SENTINELS_OWN}\n"
            f"sentinel sentinel-pass {SENTINELS_OWN}\n"
            f"sentinel monitor ocr 127.0.0.1 {master} 2\nsentinel auth-pass ocr {SERVERS_OWN}\n"
            f"sentinel down-after-milliseconds ocr {int(scaled(1000))}\nsentinel failover-timeout ocr {int(scaled(5000))}\n"
        )
        self._run(str(file), "--sentinel")

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([self._program, *arguments], stdout=subprocess.DEVNULL)
        self._processes.append(process)
        return process

    def _answers(self, port: int) -> bool:
        try:
            return bool(self._clients[port].ping())
        except redis.ConnectionError:
            return False

    def _sees_all(self, sentinel: redis.Redis) -> bool:
        try:
            state: Any = sentinel.sentinel_master("ocr")
        except redis.RedisError:
            return False
        return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)

    @property
    def master(self) -> int:
        address: Any = self._asked[0].sentinel_get_master_addr_by_name("ocr")
        return int(address[1])

    def kill_master(self) -> int:
        """Kill the master; return its port."""
        port = self.master
        self.servers[port].kill()
        self.servers[port].wait()
        return port

    def close(self) -> None:
        for client in (*self._clients.values(), *self._asked):
            client.close()
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[SentinelRedis]:
    (tmp_path / "redis").mkdir()
    made = SentinelRedis(tmp_path / "redis")
    yield made
    made.close()


def test_a_failover_under_load_loses_nothing(tmp_path: Path, sentinels: SentinelRedis) -> None:
    # Given two workers in the middle of two documents
    stage = Stage(tmp_path, sentinels)  # type: ignore[arg-type]
    try:
        stage.plan["seconds"] = 0.1
        books = [stage.register("a", list(range(1, 21))), stage.register("b", list(range(21, 41)))]
        stage.keep_workers(2)
        stage.await_(lambda: len(stage.recognised()) >= 10)
        # When the master dies
        before = sentinels.kill_master()
        # Then the replica takes over, and each page ends, read by the same workers
        for status in stage.finish(*books):
            assert (status.status, status.done) == (DocumentStatus.COMPLETED, 20)
        assert sentinels.master != before
        assert set(stage.recognised()) == set(range(1, 41))
        assert all(worker.poll() is None for worker in stage.workers)
        # And the leader sees Redis with the rights of this user
        assert stage.ledger.memory().used > 0
        with pytest.raises(redis.exceptions.NoPermissionError):
            stage.ledger.redis.flushall()
    finally:
        stage.close()
