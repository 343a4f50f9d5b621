"""Every expression of every panel and rule, evaluated by a real Prometheus that scraped a fleet at work and with faults.

The test fails for an invalid expression, an unknown metric, and an empty result where data must exist.
"""

from __future__ import annotations

import re
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
from tests.support.waiting import scaled, until

#: The fleet's name.
NAME = "scans"
TOKEN = "a-token-of-the-tests"  # noqa: S105 - of no use elsewhere

#: Metrics that no process exposes here, with the reason. tests/engine/test_metric_names.py checks those of vLLM.
ELSEWHERE = {
    "kube_horizontalpodautoscaler_spec_max_replicas": "exposed by kube-state-metrics",
    "kube_horizontalpodautoscaler_spec_min_replicas": "exposed by kube-state-metrics",
    "kube_horizontalpodautoscaler_status_current_replicas": "exposed by kube-state-metrics",
    "kubelet_volume_stats_available_bytes": "exposed by the kubelet",
    "kubelet_volume_stats_capacity_bytes": "exposed by the kubelet",
    "ocrfleet_store_free_bytes": "of a store in a folder; tests/unit/producer/control/test_gauges.py",
    "ocrfleet_store_size_bytes": "of a store in a folder; tests/unit/producer/control/test_gauges.py",
    "ocrfleet:store_free:ratio": "of a store in a folder",
    "vllm:kv_cache_usage_perc": "exposed by vLLM",
    "vllm:num_requests_running": "exposed by vLLM",
    "vllm:num_requests_waiting": "exposed by vLLM",
}
#: Metrics that are not there within minutes, and why not.
LATER = {
    "ocrfleet:page_failures:ratio_rate1w": "has a value after an hour",
    "ocrfleet_quota_refusals_total": "counts submissions over HTTP; there are none",
    "ocrfleet_tenant_bytes_total": "counts submissions over HTTP; there are none",
    "ocrfleet_tenant_pages_total": "counts submissions over HTTP; there are none",
}


class Fleet:
    """Serve, watch and a worker with a fake GPU, each scraped by Prometheus."""

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
            "OCRFLEET_FLEET": NAME,
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
        """Send an upload event by HTTP; return the status code."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        return httpx.post(f"{self._api}/v1/events/s3", content=message, headers=headers, timeout=scaled(60)).status_code

    def until(self, expression: str) -> None:
        """Wait until an expression returns something."""

        def values() -> str:
            now = {name: self.prometheus.ask(name) for name in (*metrics(expression), "up", "ocrfleet_leader")}
            return f"{expression} does not come true: {now}"

        until(lambda: self.prometheus.ask(expression), seconds=120, pause=0.2, otherwise=values)


def judging() -> Profile:
    """Return a profile with one retry of truncated pages."""
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
    # When a page fails, another one kills its workers, a text is truncated, and a message is not an event
    fleet.put("b.tif", [5, 6])
    fleet.put("c.tif", [7])
    fleet.put("d.tif", [11, 12, 13, 14])
    assert fleet.tell(b'{"no": "event"}') == 400
    fleet.until("sum(ocrfleet_documents_ended_total) == 4")
    fleet.until("ocrfleet:quarantined_pages > 0")
    # And an increase needs two scrapes of the failed page
    fleet.until('count_over_time(ocrfleet_pages_total{status="failed"}[1h]) > 1')
    # Then each expression returns data
    known = prometheus.names()
    wrong: list[str] = []
    panels = 0
    for uid, board in loaded().items():
        panels += sum("targets" in panel and not excused(panel) for panel in board["panels"])
        for expression in (*asked(board), *besides(board)):
            wrong += [f"{uid}: {problem}" for problem in problems(prometheus, with_values(expression), known)]
        for expression, legend in legends(board):
            if metrics(expression) & LATER.keys():
                continue
            wrong += [f"{uid}: {problem}" for problem in unknown_labels(prometheus, with_values(expression), legend)]
    for rule in rules():
        name = rule.get("record") or rule["alert"]
        # An alert without a fault returns nothing, but its metrics must exist. So must the metrics of recording rules.
        parts = [rule["expr"]] if "record" in rule and name not in LATER else selectors(rule["expr"])
        prometheus.ask(rule["expr"])  # fails where Prometheus does not understand it
        wrong += [f"{name}: {problem}" for part in parts for problem in problems(prometheus, part, known)]
    assert not wrong, "\n".join(wrong)
    # And the alerts for the injected faults return data
    fleet.until('ALERTS{alertname="OcrfleetEventsDeadLettered", alertstate="firing"}')
    fleet.until('ALERTS{alertname="OcrfleetQuarantineGrowing", alertstate="firing"}')
    held = sum(rule.get("record") not in LATER for rule in rules())
    record_property(TOLD, f"{panels} panels and {held} rules hold in a real Prometheus")


def excused(panel: dict[str, Any]) -> bool:
    """Return whether an expression uses a metric that may be missing here."""
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
    """Replace the variables of Grafana: the fleet, and all of the others."""
    filled = expression.replace("$__rate_interval", "1m").replace("$fleet", NAME)
    return re.sub(r"\$(queue|profile|instance)\b", ".*", filled)
