"""The real vLLM: a repetition is stopped and frees its slot, and a page goes through all retry steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ocrfleet import keys
from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import Judgement, Profile, RetryStep, Sampling, resolve
from ocrfleet.records.documents import DocumentStatus
from ocrfleet.records.pages import PageResult
from ocrfleet.records.runs import Attempt, RunRecord
from producer.intake.register import Registered
from tests.support.engine_contract import Use, crowded, printed
from tests.support.stage import Stage
from tests.support.vllm.running import PATIENCE, Running
from worker.engines.base import Recognition
from worker.engines.vllm import engine as vllm

OTHER = resolve("numbered:OtherEngine")
MAX_TOKENS, FEWER_TOKENS = 16, 6
RETRY_STEPS = (
    RetryStep(temperature=0.2, max_tokens=FEWER_TOKENS),
    RetryStep(prompt="<image>\nFree OCR.", after=(Reason.TRUNCATED,)),
    RetryStep(prompt="<image>\nNot applicable.", after=(Reason.EMPTY,)),
    RetryStep(text_layer=True),
    RetryStep(profile="nobody"),
    RetryStep(profile=OTHER.name),
)


def unguarded(profile: Profile) -> Profile:
    """Return a profile of 8,000 tokens without n-gram blocking: only the detection of repetition ends its pages soon."""
    assert profile.sampling is not None
    sampling = profile.sampling.model_copy(update={"max_tokens": 8000, "ngram_size": None})
    return profile.model_copy(update={"sampling": sampling})


def test_a_repetition_is_stopped_and_frees_its_slot(
    tiny: Callable[..., Profile], running: Callable[[Profile], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a model that may write one token only: random weights don't repeat themselves on their own within 8,000
    profile = tiny(mode="tiny")
    use: Use = running(profile).use
    parameters = vllm._parameters

    def one_token(sampling: Sampling) -> Any:
        wanted = parameters(sampling)
        if sampling.ngram_size is None:
            wanted.allowed_token_ids = [1000]
        return wanted

    monkeypatch.setattr(vllm, "_parameters", one_token)

    async def crowd(engine: Any) -> tuple[list[Recognition], int, Recognition]:
        looping = await asyncio.gather(*(engine.recognise(crowded(), unguarded(profile)) for _ in range(4)))
        # When its pages were stopped, then the engine holds nothing of them, and reads another page
        return looping, engine.unfinished, await engine.recognise(printed(), profile)

    looping, left, after = use(crowd)
    assert [one.finish_reason for one in looping] == ["loop"] * 4
    for one in looping:
        assert one.loop is not None
        assert one.tokens is not None
        assert 0 < one.tokens < 800
        assert len(one.text) > one.loop.start
    assert left == 0
    assert after.tokens == MAX_TOKENS


def attempts(stage: Stage, book: Registered, page: int) -> list[Attempt]:
    found = sorted(
        (RunRecord.from_bytes(stage.store.get(key)) for key in stage.store.list(f"documents/{book.document}/runs/")),
        key=lambda record: record.finished,
    )
    return [one for record in found for one in record.attempts if one.page == page]


@pytest.mark.timeout(600)
def test_a_page_goes_through_all_retry_steps(stage: Stage, tiny: Callable[..., Profile]) -> None:
    # Given a model whose texts are always cut off, and another profile that reads everything
    stage.profile = tiny(mode="tiny", max_tokens=MAX_TOKENS, ladder=RETRY_STEPS, judgement=Judgement())
    book = stage.register("book", [1, 2, 3], pages_per_job=3)
    stage.start_worker(OTHER)
    stage.start_worker()
    (status,) = stage.finish(book, seconds=PATIENCE)
    # Then each page went through the retry steps that apply, with the tokens of each counted, until one was accepted
    assert status.status is DocumentStatus.COMPLETED
    for page in (1, 2, 3):
        made = attempts(stage, book, page)
        assert [(one.rung, one.outcome, one.tokens) for one in made] == [
            (0, "truncated", MAX_TOKENS),
            (1, "truncated", FEWER_TOKENS),
            (2, "truncated", MAX_TOKENS),
            (4, "skipped", None),
            (5, "skipped", None),
            (6, f"the page goes to profile {OTHER.name}", None),
            (6, "done", None),
        ]
        assert [one.temperature for one in made[:3]] == [0.0, 0.2, 0.0]
        assert (stage.result(book, page).profile, stage.result(book, page).rung) == (OTHER.name, 6)
        assert stage.text(book, page) == f"page number {page}"


@pytest.mark.timeout(600)
def test_a_page_without_an_accepted_text_keeps_its_best_text(stage: Stage, tiny: Callable[..., Profile]) -> None:
    stage.profile = tiny(mode="tiny", max_tokens=MAX_TOKENS, ladder=RETRY_STEPS, judgement=Judgement())
    book = stage.register("book", [1])
    stage.start_worker()
    (status,) = stage.finish(book, seconds=PATIENCE)
    assert [(failure.page, failure.reason) for failure in status.failures] == [(1, Reason.TRUNCATED)]
    result = PageResult.from_bytes(stage.store.get(keys.page_failed(book.document, 1, 1)))
    # All attempts were cut off: the text is one of those with the most tokens
    assert result.text.strip()
    assert (result.tokens, result.finish_reason) == (MAX_TOKENS, "length")
