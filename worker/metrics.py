"""The metrics of a worker's pages, declared in ocrfleet/metrics/definitions.py."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ocrfleet.errors import PageFaultError, Reason
from ocrfleet.metrics import definitions
from ocrfleet.records.pages import PageStatus, WarningCode

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ocrfleet.profiles.profile import Profile
    from ocrfleet.records.pages import PageResult
    from ocrfleet.records.priority import Priority
    from worker.engines.base import Recognition

_RENDERER_FAULTS = (Reason.RENDER_CRASHED, Reason.RENDER_DEADLINE, Reason.RENDER_MEMORY, Reason.INTERNAL_ERROR)

#: Looking a series up takes longer than counting, and each page needs five.
_stage = functools.lru_cache(maxsize=64)(definitions.STAGE_SECONDS.labels)


def initialise(profile: Profile) -> None:
    """Set the counters to zero, so that the first count shows as an increase."""
    for stage in definitions.STAGES:
        definitions.STAGE_SECONDS.labels(stage, profile.name)
    for direction in ("in", "out"):
        definitions.TOKENS.labels(direction, profile.name)
    for family in (
        definitions.TOKENS_WASTED,
        definitions.PAGE_TOKENS,
        definitions.ENGINE_BUSY,
        definitions.ENGINE_STARVED,
    ):
        family.labels(profile.name)
    for cause in definitions.REVIEW_CAUSES:
        definitions.PAGES_FOR_REVIEW.labels(cause, profile.name)
    for outcome in definitions.AUDIT_OUTCOMES:
        definitions.PAGE_AUDITS.labels(outcome, profile.name)
    for code in WarningCode:
        definitions.PAGE_WARNINGS.labels(code.value, profile.name)
    for reason in _RENDERER_FAULTS:
        definitions.RENDERER_CRASHES.labels(reason.value)


def stage(name: str, profile: str) -> AbstractContextManager[object]:
    """Measure a stage of a page while the block runs, even if it raises."""
    return _stage(name, profile).time()


def count_page(result: PageResult, queue: Priority) -> None:
    """Count a page that has its record."""
    definitions.PAGES.labels(result.status.value, result.profile, queue.value, result.engine, _verdict(result)).inc()
    for code in {warning.code.value for warning in result.warnings}:
        definitions.PAGE_WARNINGS.labels(code, result.profile).inc()
    if result.review:
        cause = "audit" if result.audit is not None and not result.audit.agrees else "confidence"
        definitions.PAGES_FOR_REVIEW.labels(cause, result.profile).inc()


def _verdict(result: PageResult) -> str:
    if result.status is PageStatus.FAILED:
        return (result.reason or Reason.INTERNAL_ERROR).value
    if result.blank:
        return definitions.BLANK
    return definitions.TEXT_LAYER if result.text_layer else definitions.BELIEVED


def count_tokens(recognition: Recognition, profile: str) -> None:
    """Count the tokens that an engine read and wrote in one attempt."""
    if recognition.tokens_in is not None:
        definitions.TOKENS.labels("in", profile).inc(recognition.tokens_in)
    if recognition.tokens is not None:
        definitions.TOKENS.labels("out", profile).inc(recognition.tokens)
        definitions.PAGE_TOKENS.labels(profile).observe(recognition.tokens)


def count_wasted_tokens(result: PageResult, profile: str) -> None:
    """Count the tokens of a text that was rejected."""
    definitions.TOKENS_WASTED.labels(profile).inc(result.tokens or 0)


def count_retry(profile: str, reason: Reason) -> None:
    """Count an attempt at a page whose last attempt failed for this reason."""
    definitions.PAGE_RETRIES.labels(profile, reason.value).inc()


def count_renderer_fault(fault: PageFaultError) -> None:
    """Count a renderer process that crashed or was killed."""
    definitions.RENDERER_CRASHES.labels(fault.reason.value).inc()
