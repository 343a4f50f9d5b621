"""The metrics of vLLM that our dashboards show exist in vLLM."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tests.support.promql import asked, loaded, metrics


def test_vllm_has_the_metrics_that_dashboards_ask_for() -> None:
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    declared = (Path(found.origin).parent / "v1" / "metrics" / "loggers.py").read_text()
    shown = {name for board in loaded().values() for expression in asked(board) for name in metrics(expression)}
    vllms = {name for name in shown if name.startswith("vllm:")}
    assert vllms
    assert [name for name in sorted(vllms) if f'"{name}"' not in declared] == []
