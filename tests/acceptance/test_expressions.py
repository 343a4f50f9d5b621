"""Every expression of every panel and rule, asked of a real Prometheus that scraped a fleet at work and in trouble.

One that is wrong, names what nobody exposes, or returns nothing although there was something to tell fails here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import Judgement, Profile, RetryStep, Sampling, resolve
from tests.support.desk import Desk
from tests.support.fakes.misbehaving import LIMIT, write_prints
from tests.support.prometheus import Prometheus
from tests.support.promql import asked, besides, legends, loaded, metrics, rules, selectors
from tests.support.servers import FAKES, TOLD, SeaweedFS, Valkey, free_ports
from tests.support.waiting import rest, scaled

TOKEN = "a-token-of-the-tests"  # noqa: S105 - of no use elsewhere

#: Metrics that nobody exposes here, and why not. That vLLM has them, tests/engine/test_metric_names.py looks up.
ELSEWHERE = {
    "vllm:kv_cache_usage_perc": "exposed by vLLM",
    "vllm:num_requests_running": "exposed by vLLM",
    "vllm:num_requests_waiting": "exposed by vLLM",
}
#: Recorded metrics that are not there within minutes, and why not.
LATER = {"ocrfleet:page_failures:ratio_rate1w": "has a value after an hour"}


class Fleet:
    """Serve, watch and a worker with a GPU that is none, each with its metrics scraped."""

    def __init__(self, desk: Desk, valkey: Valkey, seaweed: SeaweedFS) -> None:
        self.desk, self.seaweed = desk, seaweed
        self.inbox, self.texts, store = seaweed.bucket(), seaweed.bucket(), seaweed.bucket()
        valkey.client.config_set("maxmemory", "256mb")
        valkey.client.config_set("maxmemory-policy", "noeviction")
        profile = desk.folder / "profile.json"
        profile.write_text(judging().model_dump_json())
        api, watch, worker = free_ports(3)
        shared = {
            **seaweed.environment,
            "OCRFLEET_S3_ENDPOINT_URL": seaweed.endpoint,
            "OCRFLEET_STORE": f"s3://{store}/fleet",
            "OCRFLEET_REDIS_URL": valkey.url,
            "OCRFLEET_CACHE": str(desk.folder / "cache"),
            "OCRFLEET_LEASE_SECONDS": str(scaled(3)),
            "OCRFLEET_SUSPECT_DEATHS": "1",
            "OCRFLEET_QUARANTINE_DEATHS": "1",
            "OCRFLEET_API_TOKENS": TOKEN,
            "OCRFLEET_PRICE_PER_GPU_HOUR": "2.5",
            "PYTHONPATH": f"{FAKES}:{FAKES / 'gpus'}",
        }
        using = ("--profile", profile)
        desk.start("serve", "--port", api, *using, environment=shared)
        desk.start("worker", "--gpus", "0", *using, environment=shared | {"OCRFLEET_METRICS_PORT": str(worker)})
        desk.start(
            *("watch", "--poll", f"s3://{self.inbox}/", "--every", "1", "--results", f"s3://{self.texts}/"),
            *using,
            environment=shared | {"OCRFLEET_METRICS_PORT": str(watch)},
        )
        self._api = f"http://127.0.0.1:{api}"
        self.prometheus = Prometheus(
            desk.folder, {"ocrfleet-serve": api, "ocrfleet-watch": watch, "ocrfleet-worker": worker}
        )

    def put(self, key: str, numbers: list[int]) -> None:
        self.seaweed.client.upload_file(str(write_prints(self.desk.folder / key, numbers)), self.inbox, key)

    def tell(self, message: bytes) -> int:
        """Tell of an upload by HTTP; return the status of the answer."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        return httpx.post(f"{self._api}/v1/events/s3", content=message, headers=headers, timeout=scaled(60)).status_code

    def until(self, expression: str) -> None:
        """Wait until an expression returns something."""
        deadline = time.monotonic() + scaled(120)
        while not self.prometheus.ask(expression):
            now = {name: self.prometheus.ask(name) for name in (*metrics(expression), "up", "ocrfleet_leader")}
            assert time.monotonic() < deadline, f"{expression} does not come true: {now}"
            rest(0.2)


def judging() -> Profile:
    """Return a profile that tries a page once more whose text was cut off."""
    changes = {
        "prompt": "<image>\nRead.",
        "sampling": Sampling(max_tokens=LIMIT),
        "judgement": Judgement(scripts=("LATIN",)),
        "ladder": (RetryStep(temperature=0.2, after=(Reason.TRUNCATED,)),),
    }
    engine = resolve("misbehaving:MisbehavingEngine")
    return Profile.model_validate(engine.model_dump() | changes)


@pytest.fixture
def fleet(desk: Desk, valkey: Valkey, seaweed: SeaweedFS) -> Iterator[Fleet]:
    desk.plan |= {"acts": {"4": ["truncate", "well"], "6": ["fail"], "14": ["truncate", "well"]}, "crash": [7]}
    made = Fleet(desk, valkey, seaweed)
    yield made
    made.prometheus.close()


def test_every_expression_tells_something(fleet: Fleet, record_property: Callable[[str, object], None]) -> None:
    # Given a fleet at work, scraped before its first page and after it
    prometheus = fleet.prometheus
    for job in ("serve", "watch", "worker"):
        fleet.until(f'up{{job="ocrfleet-{job}"}} == 1')
    fleet.until("ocrfleet_engine_slots > 0")
    fleet.put("a.tif", [1, 2, 3, 4])
    fleet.until("sum(ocrfleet_documents_ended_total) == 1")
    # When a page fails, another one kills its workers, a text is cut off, and a message is no event
    fleet.put("b.tif", [5, 6])
    fleet.put("c.tif", [7])
    fleet.put("d.tif", [11, 12, 13, 14])
    assert fleet.tell(b'{"no": "event"}') == 400
    fleet.until("sum(ocrfleet_documents_ended_total) == 4")
    fleet.until("ocrfleet:quarantined_pages > 0")
    # Then each expression is answered, and tells something
    known = prometheus.names()
    wrong: list[str] = []
    panels = 0
    for uid, board in loaded().items():
        panels += sum("targets" in panel and not excused(panel) for panel in board["panels"])
        for expression in (*asked(board), *besides(board)):
            wrong += [f"{uid}: {problem}" for problem in problems(prometheus, with_values(expression), known)]
        for expression, legend in legends(board):
            wrong += [f"{uid}: {problem}" for problem in unknown_labels(prometheus, with_values(expression), legend)]
    for rule in rules():
        name = rule.get("record") or rule["alert"]
        # An alert tells nothing as long as all is well: what it looks at must be there. So must what is recorded later on.
        parts = [rule["expr"]] if "record" in rule and name not in LATER else selectors(rule["expr"])
        prometheus.ask(rule["expr"])  # fails where Prometheus does not understand it
        wrong += [f"{name}: {problem}" for part in parts for problem in problems(prometheus, part, known)]
    assert not wrong, "\n".join(wrong)
    # And what went wrong is told of
    fleet.until('ALERTS{alertname="OcrfleetEventsDeadLettered", alertstate="firing"}')
    fleet.until('ALERTS{alertname="OcrfleetQuarantineGrowing", alertstate="firing"}')
    held = sum(rule.get("record") not in LATER for rule in rules())
    record_property(TOLD, f"{panels} panels and {held} rules hold in a real Prometheus")


def excused(panel: dict[str, Any]) -> bool:
    """Tell whether a panel asks for something that is not there, and need not be."""
    return any(metrics(target["expr"]) & (ELSEWHERE.keys() | LATER.keys()) for target in panel["targets"])


def problems(prometheus: Prometheus, expression: str, known: set[str]) -> Iterator[str]:
    named = metrics(expression)
    yield from (f"{name} does not exist: {expression}" for name in named - known - ELSEWHERE.keys() - LATER.keys())
    if not named & (ELSEWHERE.keys() | LATER.keys()) and not prometheus.ever(expression):
        yield f"nothing is returned by {expression}"


def unknown_labels(prometheus: Prometheus, expression: str, legend: str) -> Iterator[str]:
    found = [series["metric"] for series in prometheus.ever(expression)]
    for label in re.findall(r"\{\{(\w+)\}\}", legend):
        if found and not any(label in labels for labels in found):
            yield f"no series has the label {label} of the legend {legend!r}: {expression}"


def with_values(expression: str) -> str:
    """Put in what Grafana puts in for its variables when all is chosen."""
    return re.sub(r"\$(queue|profile|instance)\b", ".*", expression.replace("$__rate_interval", "1m"))
