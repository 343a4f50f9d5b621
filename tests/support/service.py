"""A fleet as a service: commands as processes, on a real S3 server and a real Valkey."""

from __future__ import annotations

import signal
import subprocess

from tests.support.desk import Desk
from tests.support.fakes.numbered import write_book
from tests.support.servers import SeaweedFS, Valkey
from tests.support.waiting import scaled


class Service:
    """A fleet with two buckets and a third one for its store; the test starts its processes."""

    def __init__(self, desk: Desk, valkey: Valkey, seaweed: SeaweedFS, **environment: str) -> None:
        self.desk, self.valkey, self.seaweed = desk, valkey, seaweed
        self.inbox, self.texts, self.store = seaweed.bucket(), seaweed.bucket(), seaweed.bucket()
        self.environment = {
            **seaweed.environment,
            "OCRFLEET_S3_ENDPOINT_URL": seaweed.endpoint,
            "OCRFLEET_STORE": f"s3://{self.store}/fleet",
            "OCRFLEET_REDIS_URL": valkey.url,
            "OCRFLEET_LEASE_SECONDS": str(scaled(5)),
            "OCRFLEET_CACHE": str(desk.folder / "cache"),
            **environment,
        }
        self._processes: list[subprocess.Popen[str]] = []

    def begin(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command that goes on until `stop`."""
        process = self.desk.start(*arguments, environment=self.environment)
        self._processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        self._processes.remove(process)
        process.kill()
        process.communicate()

    def stop(self) -> None:
        """Stop the processes, the last one first; each must exit with 0."""
        processes = self._processes[::-1]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            _, said = process.communicate(timeout=scaled(60))
            assert process.returncode == 0, said

    def put(self, key: str, numbers: list[int]) -> None:
        path = write_book(self.desk.folder / "book.tif", numbers)
        self.seaweed.client.upload_file(str(path), self.inbox, key)

    def names(self) -> set[str]:
        """The keys of the results."""
        pages = self.seaweed.client.get_paginator("list_objects_v2").paginate(Bucket=self.texts)
        return {item["Key"] for page in pages for item in page.get("Contents", ())}

    def results(self) -> dict[str, bytes]:
        found = {}
        for page in self.seaweed.client.get_paginator("list_objects_v2").paginate(Bucket=self.texts):
            for item in page.get("Contents", ()):
                body = self.seaweed.client.get_object(Bucket=self.texts, Key=item["Key"])["Body"]
                found[item["Key"]] = body.read()
        return found

    def ask(self, *arguments: object, code: int = 0) -> str:
        ended = self.desk.run(*arguments, environment=self.environment)
        assert ended.returncode == code, ended.stderr
        return ended.stdout
