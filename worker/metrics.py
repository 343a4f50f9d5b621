"""What a worker counts of its pages: see ocrfleet/metrics/definitions.py."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ocrfleet.errors import PageFaultError, Reason
from ocrfleet.metrics import definitions as metrics
from ocrfleet.records.pages import PageStatus

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.base import Priority
    from ocrfleet.records.pages import PageResult
    from worker.engines.base import Recognition

_RENDERER_FAULTS = (Reason.RENDER_CRASHED, Reason.RENDER_DEADLINE, Reason.RENDER_MEMORY, Reason.INTERNAL_ERROR)

#: A series is looked up five times a page, which takes longer than to count.
_stage = functools.lru_cache(maxsize=64)(metrics.STAGE_SECONDS.labels)


def begin(profile: Profile) -> None:
    """Have what may be counted stand at zero: the first of a kind is then seen as an increase."""
    for stage in metrics.STAGES:
        metrics.STAGE_SECONDS.labels(stage, profile.name)
    for direction in ("in", "out"):
        metrics.TOKENS.labels(direction, profile.name)
    for family in (metrics.TOKENS_WASTED, metrics.PAGE_TOKENS, metrics.ENGINE_BUSY, metrics.ENGINE_STARVED):
        family.labels(profile.name)
    for reason in _RENDERER_FAULTS:
        metrics.RENDERER_CRASHES.labels(reason.value)


def stage(name: str, profile: str) -> AbstractContextManager[object]:
    """Measure a stage of a page's way while the block runs, whatever it ends with."""
    return _stage(name, profile).time()


def ended(result: PageResult, queue: Priority) -> None:
    """Count a page that has its terminal record."""
    metrics.PAGES.labels(result.status.value, result.profile, queue.value, result.engine, _verdict(result)).inc()


def _verdict(result: PageResult) -> str:
    if result.status is PageStatus.FAILED:
        return (result.reason or Reason.INTERNAL_ERROR).value
    if result.blank:
        return metrics.BLANK
    return metrics.TEXT_LAYER if result.text_layer else metrics.BELIEVED


def recognised(recognition: Recognition, profile: str) -> None:
    """Count what an engine read and wrote in one attempt."""
    if recognition.tokens_in is not None:
        metrics.TOKENS.labels("in", profile).inc(recognition.tokens_in)
    if recognition.tokens is not None:
        metrics.TOKENS.labels("out", profile).inc(recognition.tokens)
        metrics.PAGE_TOKENS.labels(profile).observe(recognition.tokens)


def disbelieved(result: PageResult, profile: str) -> None:
    """Count what was written for nothing."""
    metrics.TOKENS_WASTED.labels(profile).inc(result.tokens or 0)


def tried_again(profile: str, reason: Reason) -> None:
    """Count an attempt at a page that had come to nothing before."""
    metrics.PAGE_RETRIES.labels(profile, reason.value).inc()


def renderer_failed(fault: PageFaultError) -> None:
    metrics.RENDERER_CRASHES.labels(fault.reason.value).inc()
