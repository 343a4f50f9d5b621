"""Expired leases are counted without an event of the broker; GPU metrics where there are GPUs."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric

from ocrfleet import keys
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.metrics import definitions as metrics
from producer.control.gauges import ExpiredLeases, disk_of
from producer.processes.gpus import Gpus
from tests.support.servers import Valkey

LEASE = 60.0


class Leased:
    """Leases as kombu stores them, by a clock that the test controls."""

    def __init__(self, valkey: Valkey) -> None:
        self.redis = valkey.client
        self.expired = ExpiredLeases(MessageInspector(valkey.client), LEASE)

    def renew(self, *tags: str, at: float) -> None:
        self.redis.zadd(keys.UNACKED_INDEX, dict.fromkeys(tags, at))

    def gone(self, *tags: str) -> None:
        self.redis.zrem(keys.UNACKED_INDEX, *tags)


@pytest.fixture
def leased(valkey: Valkey) -> Leased:
    return Leased(valkey)


def test_a_lease_that_is_renewed_or_given_back_did_not_expire(leased: Leased) -> None:
    for now in range(0, 600, 5):
        leased.renew("long", at=now - now % 6)
        if now < 300:
            leased.renew("short", at=now)
        else:
            leased.gone("short")
        assert leased.expired.count(now) == 0


def test_an_expired_lease_is_counted_once(leased: Leased) -> None:
    leased.renew("dead", at=0.0)
    counts = []
    for now in range(0, 180, 5):
        if now == 65:
            leased.gone("dead")  # kombu gave it back
        counts.append(leased.expired.count(now))
    assert sum(counts) == 1


def test_an_expired_lease_taken_over_at_once_is_counted(leased: Leased) -> None:
    leased.renew("dead", at=0.0)
    counts = []
    for now in range(0, 180, 5):
        if now >= 65:
            leased.renew("dead", at=now)  # the same tag, in another hand
        counts.append(leased.expired.count(now))
    assert sum(counts) == 1


def test_a_late_but_finished_lease_is_not_counted(leased: Leased) -> None:
    leased.renew("slow", at=0.0)
    assert leased.expired.count(40.0) == 0
    leased.renew("slow", at=45.0)
    assert leased.expired.count(50.0) == 0
    assert leased.expired.count(80.0) == 0
    leased.gone("slow")
    assert leased.expired.count(85.0) == 0


def test_the_disk_of_a_folder_is_measured_and_that_of_s3_is_not(tmp_path: Path) -> None:
    seen = disk_of(str(tmp_path))
    assert 0 < seen[metrics.STORE_FREE][()] <= seen[metrics.STORE_SIZE][()]
    assert disk_of("s3://bucket/prefix") == disk_of(str(tmp_path / "gone")) == {}


def fake_nvml(used: Sequence[int]) -> Any:
    module = types.ModuleType("pynvml")
    module.nvmlInit = lambda: None  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByIndex = lambda index: used[index]  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByUUID = lambda uuid: used[int(uuid[-1])]  # type: ignore[attr-defined]
    module.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(used=handle, total=80 << 30)  # type: ignore[attr-defined]
    module.nvmlDeviceGetUtilizationRates = lambda _: types.SimpleNamespace(gpu=97)  # type: ignore[attr-defined]
    return module


def values(families: Sequence[Metric]) -> dict[tuple[str, str], float]:
    return {(sample.name, sample.labels["gpu"]): sample.value for family in families for sample in family.samples}


def test_the_gpus_of_a_supervisor_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([10, 20, 30]))

    seen = values(list(Gpus(["0,2", "GPU-1"]).collect()))

    assert {gpu for _, gpu in seen} == {"0", "2", "GPU-1"}
    assert seen["ocrfleet_gpu_memory_used_bytes", "2"] == 30
    assert seen["ocrfleet_gpu_memory_total_bytes", "GPU-1"] == 80 << 30
    assert seen["ocrfleet_gpu_utilization_ratio", "0"] == 0.97


@pytest.mark.parametrize("broken", ["no library", "a GPU that is gone"])
def test_without_nvml_or_a_gpu_there_are_no_gpu_metrics(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None if broken == "no library" else fake_nvml([10]))
    assert list(Gpus(["0", "1"]).collect()) == []


def test_a_worker_without_devices_does_not_call_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([10]))
    assert list(Gpus([None, None]).collect()) == []
