"""Metrics of a worker: pages, attempts, tokens, and idle seconds of its engine."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from ocrfleet.errors import PageFaultError, Reason
from ocrfleet.metrics import definitions as metrics
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.pages import PageResult
from ocrfleet.records.priority import Priority
from tests.support.shelf import page_result
from worker import metrics as meters
from worker.engines.base import Recognition
from worker.pipeline.utilisation import Utilisation


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("result", "status", "verdict"),
    [
        (page_result(1), "done", "believed"),
        (page_result(1).model_copy(update={"blank": True}), "done", "blank"),
        (page_result(1).model_copy(update={"text_layer": True}), "done", "text_layer"),
        (page_result(1, Reason.TRUNCATED), "failed", "truncated"),
        # A text layer that is rejected is a failure like others
        (page_result(1, Reason.WRONG_SCRIPT).model_copy(update={"text_layer": True}), "failed", "wrong_script"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_page_is_counted_by_its_outcome(result: PageResult, status: str, verdict: str) -> None:
    labels = {"status": status, "profile": "rapidocr", "queue": "bulk", "engine": "rapidocr", "verdict": verdict}
    before = value("ocrfleet_pages_total", **labels)

    meters.count_page(result, Priority.BULK)

    assert value("ocrfleet_pages_total", **labels) == before + 1


def test_tokens_are_counted_if_the_engine_reports_them() -> None:
    meters.count_tokens(Recognition(text="a", tokens=300, tokens_in=900), "metered")
    meters.count_tokens(Recognition(text="a", tokens=20), "metered")
    meters.count_tokens(Recognition(text="a"), "metered")
    meters.count_wasted_tokens(page_result(1, Reason.REPETITION).model_copy(update={"tokens": 20}), "metered")
    meters.count_wasted_tokens(page_result(1, Reason.EMPTY), "metered")

    assert value("ocrfleet_tokens_total", direction="in", profile="metered") == 900
    assert value("ocrfleet_tokens_total", direction="out", profile="metered") == 320
    assert value("ocrfleet_tokens_wasted_total", profile="metered") == 20
    assert value("ocrfleet_page_tokens_count", profile="metered") == 2


def test_counters_are_zero_from_the_start() -> None:
    meters.initialise(RAPIDOCR.model_copy(update={"name": "begun"}))

    for stage in metrics.STAGES:
        assert REGISTRY.get_sample_value("ocrfleet_stage_seconds_count", {"stage": stage, "profile": "begun"}) == 0
    assert REGISTRY.get_sample_value("ocrfleet_tokens_wasted_total", {"profile": "begun"}) == 0
    for fault in (Reason.RENDER_CRASHED, Reason.RENDER_DEADLINE, Reason.RENDER_MEMORY):
        assert REGISTRY.get_sample_value("ocrfleet_renderer_crashes_total", {"reason": fault.value}) is not None


def test_a_renderer_that_crashed_counts_by_how() -> None:
    before = value("ocrfleet_renderer_crashes_total", reason="render_memory")
    meters.count_renderer_fault(PageFaultError(Reason.RENDER_MEMORY, "too much"))
    assert value("ocrfleet_renderer_crashes_total", reason="render_memory") == before + 1


def test_a_stage_that_ends_in_an_error_took_its_time_as_well() -> None:
    with pytest.raises(ZeroDivisionError), meters.stage("judge", "failing"):
        raise ZeroDivisionError
    assert value("ocrfleet_stage_seconds_count", stage="judge", profile="failing") == 1


def test_an_engine_has_pages_running_and_waiting() -> None:
    feed = Utilisation(worker="w", profile=RAPIDOCR.model_copy(update={"name": "fed"}), slots=1, clock=lambda: 0.0)

    def requests() -> tuple[float, float]:
        running, waiting = (
            value("ocrfleet_engine_requests", state=state, profile="fed") for state in ("running", "waiting")
        )
        return running, waiting

    assert value("ocrfleet_engine_slots", profile="fed") == 1
    assert requests() == (0, 0)
    with feed.recognising():
        assert requests() == (1, 0)
        # One that the engine has beyond what it takes at once, and one that it has no room for
        with feed.recognising(), feed.waiting():
            feed.update_metrics()
            assert requests() == (1, 2)
        assert requests() == (1, 0)
    assert requests() == (0, 0)


def test_busy_and_starved_seconds_are_exposed_as_they_pass() -> None:
    now = 0.0
    feed = Utilisation(worker="w", profile=RAPIDOCR.model_copy(update={"name": "timed"}), slots=1, clock=lambda: now)

    def exposed() -> tuple[float, float]:
        feed.update_metrics()
        busy, starved = (
            value(f"ocrfleet_engine_{kind}_seconds_total", profile="timed") for kind in ("busy", "starved")
        )
        return busy, starved

    with feed.preparing():
        now = 2.0
        assert exposed() == (2, 2)
        with feed.recognising():
            # Long before the page ends
            now = 32.0
            assert exposed() == (32, 2)
    now = 100.0
    assert exposed() == (32, 2)
