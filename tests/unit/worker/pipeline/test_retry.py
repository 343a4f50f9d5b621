"""The retry policy: only later steps that are remedies; a retry never makes the result worse."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import RetryStep
from ocrfleet.records.pages import PageResult, PageStatus, RetryState
from worker.pipeline.retry import REJECTIONS, better, steps_above

LADDER = (
    RetryStep(temperature=0.2, after=(Reason.REPETITION, Reason.TRUNCATED)),
    RetryStep(prompt="<image>\nFree OCR."),
    RetryStep(profile="rapidocr", after=(Reason.EMPTY,)),
)


def text(reason: Reason, words: str = "", *, rung: int = 0) -> PageResult:
    return PageResult(
        page=1,
        status=PageStatus.FAILED,
        reason=reason,
        text=words,
        rung=rung,
        profile="p",
        engine="e",
        model="m",
        revision="r",
    )


@pytest.mark.parametrize(
    ("rung", "reason", "above"),
    [
        (0, Reason.REPETITION, [1, 2]),
        (0, Reason.EMPTY, [2, 3]),
        (0, Reason.ENGINE_DEADLINE, [2]),
        (1, Reason.REPETITION, [2]),
        (2, Reason.EMPTY, [3]),
        (2, Reason.REPETITION, []),
        (3, Reason.EMPTY, []),
    ],
)
def test_only_steps_above_that_are_a_remedy_are_tried(rung: int, reason: Reason, above: list[int]) -> None:
    assert steps_above(LADDER, rung, {reason}) == above


def test_a_fault_at_a_later_step_keeps_the_remedies_for_the_rejection() -> None:
    assert steps_above(LADDER, 2, {Reason.RENDER_MEMORY}) == []
    assert steps_above(LADDER, 2, {Reason.RENDER_MEMORY, Reason.EMPTY}) == [3]


def test_of_texts_with_the_same_reason_the_longer_is_kept() -> None:
    words = " ".join(f"{number} sheep" for number in range(50))
    best = better(text(Reason.TRUNCATED, words, rung=1), text(Reason.TRUNCATED, "one sheep"))
    assert best.text == words
    # And copies count for little, however long the text gets by them
    assert better(text(Reason.TRUNCATED, "one sheep, " * 1000, rung=2), best) is best


def test_of_equal_texts_the_earlier_is_kept() -> None:
    first = text(Reason.INVENTED, "a ferry")
    assert better(first, None) is first
    assert better(text(Reason.INVENTED, "a ferry", rung=1), first) is first


def test_the_text_with_the_least_severe_reason_is_kept_at_any_length() -> None:
    little = text(Reason.TRUNCATED, "a", rung=1)
    assert better(little, text(Reason.INVENTED, "a whole page that nobody wrote")) is little


results = st.lists(
    st.builds(text, st.sampled_from(REJECTIONS), st.text("ab ", max_size=30), rung=st.integers(0, 9)),
    min_size=1,
    max_size=6,
)


@given(results)
def test_no_attempt_makes_a_page_worse(attempts: list[PageResult]) -> None:
    best: PageResult | None = None
    doubts = []
    for result in attempts:
        best = better(result, best)
        assert best.reason is not None
        doubts.append(REJECTIONS.index(best.reason))
    assert all(later <= earlier for earlier, later in itertools.pairwise(doubts))
    state = RetryState(profile_digest="0" * 64, rung=1, fell=Reason.EMPTY, best=best)
    assert RetryState.from_bytes(state.to_bytes()) == state


@given(st.integers(0, 3), st.lists(st.sampled_from(list(Reason)), max_size=9))
def test_whatever_a_page_fails_with_its_retries_end(rung: int, reasons: list[Reason]) -> None:
    seen = [rung]
    for reason in reasons:
        above = steps_above(LADDER, seen[-1], {reason})
        if not above:
            break
        seen.append(above[0])
    assert seen == sorted(set(seen))


def test_a_retry_step_is_one_way_to_try_again() -> None:
    for wrong in (
        {},
        {"max_tokens": 5},
        {"profile": "rapidocr", "temperature": 0.1},
        {"text_layer": True, "prompt": "<image>"},
    ):
        with pytest.raises(ValidationError, match="one of the three"):
            RetryStep.model_validate(wrong)
