"""Exposition of metrics: of a process, of its children, and of children that ended."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from ocrfleet.errors import ConfigurationError
from ocrfleet.metrics import definitions as metrics
from ocrfleet.metrics import exposition as exposition_module
from ocrfleet.metrics.exposition import ChildMetrics, Exposition, ObservedGauges, served
from ocrfleet.settings import Settings
from tests.support.scrape import Scrape, scrape, scraped
from tests.support.servers import free_ports
from tests.support.waiting import scaled

#: A child: counts two pages, or a given number, and has three in its engine.
CHILD = """
import sys
from prometheus_client import Counter, Gauge
from ocrfleet.metrics import exposition as exposition_module
from ocrfleet.metrics import definitions as metrics
for _ in range(int(sys.argv[1])):
    metrics.PAGES.labels("done", "p", "bulk", "e", "believed").inc()
    metrics.STAGE_SECONDS.labels("fetch", "p").observe(0.2)
metrics.ENGINE_REQUESTS.labels("running", "p").set(3)
Counter("vllm:prompt_tokens", "Theirs.", ["model_name"]).labels("m").inc(7)
Gauge("vllm:kv_cache_usage_perc", "Theirs.", ["model_name"], multiprocess_mode="mostrecent").labels("m").set(0.5)
"""


def child(children: ChildMetrics, name: str, pages: int) -> None:
    environment = {**os.environ, **children.environment(name)}
    subprocess.run([sys.executable, "-c", CHILD, str(pages)], env=environment, check=True, timeout=scaled(60))


def page(*collectors: Collector) -> Scrape:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return Scrape(generate_latest(registry).decode())


def page_of(exposition: Exposition) -> Scrape:
    return Scrape(exposition.page().decode())


@pytest.fixture
def children(tmp_path: Path) -> ChildMetrics:
    return ChildMetrics(tmp_path / "metrics")


@pytest.fixture
def exposition(children: ChildMetrics) -> Exposition:
    made = Exposition(Settings())
    made.add(children)
    return made


def test_counters_of_children_are_summed(children: ChildMetrics, exposition: Exposition) -> None:
    child(children, "worker-0", 2)
    child(children, "worker-1", 3)

    seen = page_of(exposition)

    assert seen.values("ocrfleet_pages_total", profile="p") == [5]
    assert seen.sum("ocrfleet_engine_requests", state="running", profile="p") == 6
    assert seen.values("ocrfleet_stage_seconds_count", stage="fetch", profile="p") == [5]
    assert seen.values("ocrfleet_stage_seconds_bucket", stage="fetch", profile="p", le="0.1") == [0]
    assert seen.values("ocrfleet_stage_seconds_bucket", stage="fetch", profile="p", le="0.25") == [5]
    assert seen.values("ocrfleet_stage_seconds_bucket", stage="fetch", profile="p", le="+Inf") == [5]
    assert seen.families["ocrfleet_pages"] == "counter"
    assert seen.families["ocrfleet_stage_seconds"] == "histogram"


def test_counters_of_a_dead_child_are_kept_and_its_gauges_dropped(
    children: ChildMetrics, exposition: Exposition, tmp_path: Path
) -> None:
    child(children, "worker-0", 2)
    child(children, "worker-1", 3)
    for _ in range(3):
        # When one dies again and again
        children.record_exit("worker-0")
        child(children, "worker-0", 1)
    children.record_exit("worker-0")

    seen = page_of(exposition)

    # Then its counters are kept, its gauges and files are removed
    assert seen.values("ocrfleet_pages_total", profile="p") == [8]
    assert seen.values("ocrfleet_stage_seconds_count", stage="fetch", profile="p") == [8]
    assert seen.sum("ocrfleet_engine_requests", state="running", profile="p") == 3
    assert list((tmp_path / "metrics" / "worker-0").iterdir()) == []


def test_series_of_several_vllm_engines_are_distinct(children: ChildMetrics, exposition: Exposition) -> None:
    child(children, "worker-0", 1)
    child(children, "worker-1", 1)

    seen = page_of(exposition)

    # Shares of two caches can't be added up
    assert seen.values("vllm:kv_cache_usage_perc", model_name="m") == [0.5, 0.5]
    assert seen.labels("vllm:kv_cache_usage_perc", "worker") == {"worker-0", "worker-1"}
    assert seen.values("vllm:prompt_tokens_total", worker="worker-1") == [7]


def test_counters_of_parent_and_child_are_one_series(children: ChildMetrics, exposition: Exposition) -> None:
    code = "from ocrfleet.metrics import definitions as metrics; metrics.STORE_ERRORS.inc(5)"
    environment = {**os.environ, **children.environment("intake-consumer-0")}
    before = page_of(exposition).sum("ocrfleet_store_errors_total")
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=scaled(60))

    assert page_of(exposition).values("ocrfleet_store_errors_total") == [before + 5]


def test_the_exposition_is_complete_while_children_start_and_end(
    children: ChildMetrics, exposition: Exposition
) -> None:
    # Prometheus would take a temporarily decreased counter for a burst
    over = threading.Event()
    seen: list[float] = []

    def look() -> None:
        while not over.is_set():
            seen.append(page_of(exposition).sum("ocrfleet_pages_total", profile="p"))

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(4):
        child(children, "worker-0", 1)
        children.record_exit("worker-0")
    over.set()
    looking.join()

    assert seen == sorted(seen)
    assert page_of(exposition).sum("ocrfleet_pages_total", profile="p") == 4


def test_a_price_and_a_version_are_there_and_a_price_only_if_set() -> None:
    priced = page_of(Exposition(Settings(price_per_gpu_hour=2.5)))
    free = page_of(Exposition(Settings()))

    assert priced.values("ocrfleet_price_per_gpu_hour") == [2.5]
    assert free.values("ocrfleet_price_per_gpu_hour") == []
    assert free.values("ocrfleet_build_info") == [1]
    assert not [name for name in free.names() if name.endswith("_created")]


@pytest.mark.parametrize(
    ("named", "fleet"),
    [
        ({"store": "s3://scans/books/"}, "scans/books"),
        ({"store": "/srv/store"}, "/srv/store"),
        ({"store": "store"}, str(Path("store").absolute())),
        ({"store": "s3://scans/books", "fleet": "books"}, "books"),
    ],
)
def test_every_sample_has_the_fleet(named: dict[str, str], fleet: str, children: ChildMetrics) -> None:
    made = Exposition(Settings.model_validate(named))
    made.add(children)
    child(children, "worker-0", 1)
    seen = page_of(made)
    assert {dict(labels).get("fleet") for _, labels in seen.samples} == {fleet}
    assert {"ocrfleet_pages_total", "ocrfleet_build_info", "vllm:kv_cache_usage_perc"} <= seen.names()


def test_measured_gauges_are_replaced_together() -> None:
    snapshot = ObservedGauges()
    assert page(snapshot).names() == set()

    snapshot.replace({metrics.WORKERS: {("a",): 1, ("b",): 2}, metrics.FLEET_SPEED: {(): 0.5}})
    assert page(snapshot).values("ocrfleet_workers", profile="b") == [2]
    assert page(snapshot).values("ocrfleet_fleet_pages_per_second") == [0.5]

    snapshot.replace({metrics.WORKERS: {("a",): 1}})
    assert page(snapshot).labels("ocrfleet_workers", "profile") == {"a"}
    assert page(snapshot).values("ocrfleet_fleet_pages_per_second") == []


def test_it_is_served_where_the_settings_say(exposition: Exposition) -> None:
    (port,) = free_ports(1)
    with served(exposition, Settings(metrics_port=port)):
        assert scrape(port).values("ocrfleet_build_info") == [1]
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=scaled(30)).status_code == 404
        assert httpx.post(f"http://127.0.0.1:{port}/metrics", timeout=scaled(30)).status_code == 404
    with pytest.raises(httpx.ConnectError):
        scrape(port)


def test_health_is_served_beside_it(exposition: Exposition) -> None:
    (port,) = free_ports(1)
    away: list[str] = []
    with served(exposition, Settings(metrics_port=port), missing=lambda: away):
        ask = functools.partial(httpx.get, timeout=scaled(30))
        assert ask(f"http://127.0.0.1:{port}/healthz").json() == {"status": "ok"}
        assert ask(f"http://127.0.0.1:{port}/readyz").status_code == 200
        away.append("Redis")
        answer = ask(f"http://127.0.0.1:{port}/readyz")
        assert (answer.status_code, answer.text) == (503, "no response from Redis\n")
        assert ask(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_silent_connections_are_limited_and_closed(exposition: Exposition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition_module._Handler, "timeout", 1)
    (port,) = free_ports(1)
    with served(exposition, Settings(metrics_port=port)), ExitStack() as silent:
        # Given more open connections than the limit
        for _ in range(exposition_module._AT_ONCE + 4):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), timeout=scaled(30)))
        # Then there is a response after the first of them timed out
        assert scraped(port, lambda _: True).values("ocrfleet_build_info") == [1]


def test_nothing_is_served_without_a_port(exposition: Exposition) -> None:
    with served(exposition, Settings()):
        assert "metrics" not in [thread.name for thread in threading.enumerate()]


def test_a_port_that_is_taken_is_said(exposition: Exposition) -> None:
    (port,) = free_ports(1)
    settings = Settings(metrics_port=port)
    with (
        served(exposition, settings),
        pytest.raises(ConfigurationError, match=f"OCRFLEET_METRICS_PORT {port}"),
        served(exposition, settings),
    ):
        pass
