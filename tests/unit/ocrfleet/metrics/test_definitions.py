"""Declarations of metrics: named by Prometheus' rules, described, used, and without a series for each document."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from ocrfleet.metrics import definitions as metrics
from ocrfleet.metrics.definitions import ObservedGauge
from tests.support.servers import ROOT
from tests.support.waiting import scaled

#: What a label may be called: each has few values, however much is read.
LABELS = frozenset(
    {
        *(
            "status",
            "profile",
            "queue",
            "engine",
            "verdict",
            "reason",
            "state",
            "direction",
            "stage",
            "code",
            "cause",
            "gpu",
            "source",
        ),
        *("outcome", "kind", "version"),
        # 200 at most (producer/intake/quotas.py)
        "tenant",
    }
)
#: What a name may end in, beside what it counts: Prometheus' base units.
UNITS = ("_seconds", "_bytes", "_ratio")


@dataclass(frozen=True)
class Declared:
    constant: str
    name: str
    documentation: str
    labels: tuple[str, ...]
    kind: type


def declared() -> list[Declared]:
    found = []
    for constant, made in vars(metrics).items():
        if isinstance(made, ObservedGauge):
            found.append(Declared(constant, made.name, made.documentation, made.labels, ObservedGauge))
        elif isinstance(made, MetricWrapperBase):
            name = made._name + "_total" * isinstance(made, Counter)
            found.append(Declared(constant, name, made._documentation, made._labelnames, type(made)))
    return found


ALL = declared()


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
class TestEach:
    def test_is_named_by_prometheus_rules(self, one: Declared) -> None:
        assert re.fullmatch(r"ocrfleet_[a-z]+(_[a-z]+)*", one.name)
        assert one.name.endswith("_total") == (one.kind is Counter)
        assert not one.name.endswith(("_count", "_sum", "_bucket"))
        words = set(one.name.split("_"))
        assert not words & {"ms", "milliseconds", "minutes", "hours", "days", "kb", "mb", "mib", "gb", "percent"}
        if words & {"seconds", "bytes", "ratio"}:
            assert one.name.removesuffix("_total").endswith(UNITS)

    def test_is_explained_in_a_sentence(self, one: Declared) -> None:
        assert len(one.documentation) > 20
        assert one.documentation[0].isupper()
        assert one.documentation.endswith(".")
        assert "\n" not in one.documentation

    def test_has_only_labels_of_few_values(self, one: Declared) -> None:
        assert set(one.labels) <= LABELS
        assert len(one.labels) == len(set(one.labels))

    def test_is_set_by_some_code(self, one: Declared) -> None:
        # A metric that is never set would be a panel that is always empty.
        used = re.compile(rf"\b(metrics|definitions)\.{one.constant}\b")
        sources = [path for room in ("ocrfleet", "producer", "worker") for path in (ROOT / room).rglob("*.py")]
        assert any(used.search(path.read_text()) for path in sources)


def test_no_name_is_declared_twice() -> None:
    names = [one.name for one in ALL]
    assert len(names) == len(set(names)) > 30
    assert len({one.constant for one in ALL}) == len(names)


def test_gauges_that_stand_alone_have_labels_and_end_with_their_process() -> None:
    # One without a label would stand at 0 in every process that has nothing to do with it; one that outlives its process
    # would be added to that of the next.
    for made in vars(metrics).values():
        if isinstance(made, Gauge):
            assert made._labelnames
            assert made._multiprocess_mode == "livesum" or made in {metrics.BUILD_INFO, metrics.WATCH_LAST_SUCCESS}


def test_histogram_buckets_ascend_and_are_few() -> None:
    for made in vars(metrics).values():
        if isinstance(made, Histogram):
            bounds = made._upper_bounds
            assert list(bounds) == sorted(set(bounds))
            assert len(bounds) <= 17


@pytest.mark.parametrize("module", ["worker.rendering.rasterise", "producer.intake.probe"])
def test_a_sandboxed_process_does_not_import_metrics(module: str) -> None:
    # Processes that open untrusted files have no writable file, and start fast.
    code = f"import sys, {module}; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=scaled(60)).returncode == 0
