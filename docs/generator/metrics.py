"""The page on metrics, from their definitions."""

from __future__ import annotations

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from docs.generator.markdown import NOTE, cell, table
from ocrfleet.metrics import definitions


def metrics() -> str:
    """Return the page on metrics, from their definitions."""
    lines = [NOTE + "# Metrics\n"]
    lines.append(
        "The metrics that processes expose at `/metrics` of `OCRFLEET_METRICS_PORT`; `ocrfleet serve` without it at the API's port. Only the leader "
        "knows the gauges of the whole fleet: scrape every `serve` and `dispatch`, and aggregate them with `max`. "
        "Each has the label `fleet` as well (`OCRFLEET_FLEET`). "
        "[Monitor a fleet](../howto/monitor.md) says how.\n"
    )
    rows = []
    for one in vars(definitions).values():
        if isinstance(one, MetricWrapperBase):
            name = f"{one._name}_total" if isinstance(one, Counter) else one._name  # noqa: SLF001
            rows.append((f"`{name}`", one._type, _labels(one._labelnames), cell(one._documentation)))  # noqa: SLF001
        elif isinstance(one, definitions.ObservedGauge):
            rows.append((f"`{one.name}`", "gauge", _labels(one.labels), cell(one.documentation)))
    lines += table(("metric", "type", "labels", "meaning"), rows)
    lines.append("A worker with vLLM also exposes vLLM's own `vllm:*` metrics, with the worker as a label.")
    return "\n".join(lines) + "\n"


def _labels(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
