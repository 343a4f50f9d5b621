"""vLLM's own metrics beside ours, exposed by the worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrfleet.metrics.exposition import ChildMetrics, Exposition
from ocrfleet.settings import Settings
from tests.support.scrape import Scrape
from tests.support.stage import Stage
from tests.support.vllm.running import PATIENCE


@pytest.mark.timeout(600)
def test_vllms_metrics_stand_beside_ours_with_their_worker(stage: Stage, tmp_path: Path) -> None:
    children = ChildMetrics(tmp_path / "metrics")
    exposition = Exposition(Settings())
    exposition.add(children)
    book = stage.register("book", [1, 2, 3])
    stage.start_worker(**children.environment("worker-0"))  # type: ignore[arg-type]

    stage.finish(book, seconds=PATIENCE)

    page = Scrape(exposition.page().decode())
    for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert len(page.values(f"vllm:{gauge}", worker="worker-0")) == 1
    # The guard's test and the canary are among theirs, and not among ours
    ours = {direction: page.sum("ocrfleet_tokens_total", direction=direction) for direction in ("in", "out")}
    assert 0 < ours["in"] < page.sum("vllm:prompt_tokens_total")
    assert 0 < ours["out"] < page.sum("vllm:generation_tokens_total")
    assert page.sum("ocrfleet_page_tokens_count") == 3
    assert page.sum("ocrfleet_engine_slots") >= 1
