"""docker-compose.yml as processes: a PDF is uploaded and its text delivered, Prometheus scrapes all services, no alert fires."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3.session
import httpx
import pymupdf
import pytest

from tests.support.compose import Composed
from tests.support.servers import lacking
from tests.support.waiting import scaled

OURS = ("serve", "intake", "watch", "worker")
THEIRS = ("redis", "s3", "prometheus", "alertmanager")
#: Scrape configuration of Prometheus.
JOBS = {"ocrfleet-serve", "ocrfleet-intake", "ocrfleet-watch", "ocrfleet-worker", "prometheus", "alertmanager"}
KEY = "letters/fox.pdf"
#: The dead man's switch, which always fires, and what depends on the kernel under the tests.
EXPECTED = "OcrfleetDeadMansSwitch|OcrfleetSandboxNotConfining"
SECRETS = {
    "REDIS_PASSWORD": "5f0c1a8e7b6d4c3a9e2f",
    "S3_ACCESS_KEY_ID": "0a1b2c3d4e5f60718293",
    "S3_SECRET_ACCESS_KEY": "a9b8c7d6e5f4a3b2c1d0a9b8c7d6e5f4",
    "OCRFLEET_API_TOKENS": "1f2e3d4c5b6a79880f1e2d3c4b5a6978",
    "GRAFANA_ADMIN_PASSWORD": "c0ffee00c0ffee00",
}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Composed]:
    for program in ("redis-server", "redis-cli", "wget", "prometheus", "prometheus-alertmanager"):
        if shutil.which(program) is None:
            lacking(f"{program} (make system-deps)")
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    made = Composed(tmp_path, env_file)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def s3(fleet: Composed) -> Iterator[Any]:
    """A client of the S3 server, from outside of the fleet."""
    session = boto3.session.Session(
        SECRETS["S3_ACCESS_KEY_ID"], SECRETS["S3_SECRET_ACCESS_KEY"], region_name="us-east-1"
    )
    client = session.client("s3", endpoint_url=f"http://{fleet.address('s3')}")
    yield client
    client.close()


def names(s3: Any) -> set[str]:
    return {item["Key"] for item in s3.list_objects_v2(Bucket="texts").get("Contents", ())}


def ask(fleet: Composed, query: str) -> list[tuple[dict[str, str], float]]:
    answer = httpx.get(
        f"http://{fleet.address('prometheus')}/api/v1/query", params={"query": query}, timeout=scaled(30)
    ).json()
    return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]


def scan_of(words: str) -> bytes:
    """Return a PDF with one page that is an image of print."""
    drawn, scan = pymupdf.open(), pymupdf.open()
    drawn.new_page(width=595, height=842).insert_text((72, 144), words, fontsize=24)
    scan.new_page(width=595, height=842).insert_image((0, 0, 595, 842), pixmap=drawn[0].get_pixmap(dpi=150))
    return bytes(scan.tobytes())


@pytest.mark.timeout(900)  # each of its steps may take minutes on a busy machine
def test_compose_up_and_a_pdf_in_the_bucket_give_text(fleet: Composed, s3: Any) -> None:
    # Given the services of `docker compose up`, each started after its dependencies are healthy
    fleet.up(*OURS, "alertmanager", "prometheus")
    # When a PDF is uploaded to the bucket
    s3.put_object(Bucket="inbox", Key=KEY, Body=scan_of("The quick brown fox is sleeping"))
    # Then its text has the key derived from the key of the upload
    fleet.until(lambda: f"{KEY}.status.json" in names(s3), "the text is there")
    status = json.loads(s3.get_object(Bucket="texts", Key=f"{KEY}.status.json")["Body"].read())
    assert (status["status"], status["done"]) == ("completed", 1)
    assert "quick brown fox" in s3.get_object(Bucket="texts", Key=f"{KEY}.md")["Body"].read().decode()
    # And the API returns the document, with the token
    api = f"http://{fleet.address('serve')}/v1/documents/{status['document']}"
    assert httpx.get(api, timeout=scaled(30)).status_code == 401
    token = SECRETS["OCRFLEET_API_TOKENS"]
    told = httpx.get(api, headers={"Authorization": f"Bearer {token}"}, timeout=scaled(30))
    assert told.json()["state"] == "completed"
    # And every service is healthy
    for name in (*THEIRS, *OURS):
        fleet.until(partial(fleet.healthy, name), f"{name} is healthy")
    # And Prometheus scrapes all of them, and no alert fires
    see_all_and_alert_nobody(fleet)
    # And no secret is in a log or in the process list
    for name in (*THEIRS, *OURS):
        assert not secrets_in(fleet.log(name), but=["S3_ACCESS_KEY_ID"]), name  # a name rather than a secret
        assert not secrets_in(fleet.shown(name)), name
    # And each exits on SIGTERM, within its grace period
    assert {name: fleet.stop(name) for name in (*OURS, *THEIRS)} == dict.fromkeys((*OURS, *THEIRS), 0)


def see_all_and_alert_nobody(fleet: Composed) -> None:
    fleet.until(lambda: {metric["job"] for metric, value in ask(fleet, "up") if value == 1} >= JOBS, "all are up")
    assert [metric for metric, value in ask(fleet, "up") if value != 1] == []
    fleet.until(lambda: ask(fleet, 'sum(ocrfleet_pages_total{status="done"}) >= 1'), "the page is counted")
    # Every rule is evaluated without an error, and none is pending: most would only fire after minutes.
    fleet.until(lambda: {rule["health"] for rule in rules(fleet)} == {"ok"}, "all rules are looked at")
    assert [rule for rule in rules(fleet) if rule["type"] == "alerting"]
    fleet.until(lambda: not ask(fleet, f'ALERTS{{alertname!~"{EXPECTED}"}}'), "nothing is about to alert")
    sent = httpx.get(f"http://{fleet.address('alertmanager')}/api/v2/alerts", timeout=scaled(30)).json()
    assert [one for one in sent if not re.fullmatch(EXPECTED, one["labels"]["alertname"])] == []


def rules(fleet: Composed) -> list[dict[str, Any]]:
    answer = httpx.get(f"http://{fleet.address('prometheus')}/api/v1/rules", timeout=scaled(30)).json()
    return [rule for group in answer["data"]["groups"] for rule in group["rules"]]


def secrets_in(text: str, *, but: Collection[str] = ()) -> list[str]:
    return [name for name, value in SECRETS.items() if value in text and name not in but]
