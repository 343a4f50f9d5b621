"""A real Prometheus with our rules, that scrapes the processes of a test."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.promql import RULES
from tests.support.servers import free_ports, lacking
from tests.support.waiting import scaled, until


class Prometheus:
    """Scrapes every five seconds, which gives a busy machine time to answer, and evaluates every two.

    Jobs are named as in deploy/prometheus/prometheus.yml.
    """

    def __init__(self, folder: Path, targets: Mapping[str, int]) -> None:
        """Take the ports of 127.0.0.1 to scrape, by job."""
        if shutil.which("prometheus") is None:
            lacking("prometheus (make system-deps)")
        (port,) = free_ports(1)
        config = {
            "global": {"scrape_interval": "5s", "evaluation_interval": "2s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{at}"]}]} for job, at in targets.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = (folder / "prometheus.log").open("w+b")
        self._process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus"),
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            stdout=self._log,
            stderr=self._log,
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=scaled(30))
        self._begun = time.time()
        self._await()

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return the current series of an expression, with `metric` (labels) and `value`. Fails for an invalid expression."""
        return self._get("query", query=expression)  # type: ignore[no-any-return]

    def ever(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression had at some time since the beginning, apart from those without a number."""
        found = self._get("query_range", query=expression, start=self._begun, end=time.time(), step=1)
        return [series for series in found if any(not math.isnan(float(value)) for _, value in series["values"])]

    def names(self) -> set[str]:
        """The names of all metrics that were scraped or recorded."""
        return set(self._get("label/__name__/values"))

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def _get(self, what: str, **parameters: object) -> Any:
        answer = (
            self._client.post(f"/api/v1/{what}", data=parameters) if parameters else self._client.get(f"/api/v1/{what}")
        )
        told = answer.json()
        assert told["status"] == "success", f"{parameters}: {told['error']}"
        return told["data"]["result"] if parameters else told["data"]

    def _await(self) -> None:
        try:
            until(self._is_ready, otherwise=self._said)
        except AssertionError:
            self.close()
            raise

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._said()
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def _said(self) -> str:
        self._log.seek(0)
        return f"Prometheus does not start: {self._log.read().decode()[-2000:]}"
