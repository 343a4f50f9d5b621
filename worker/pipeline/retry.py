"""The retry policy: selects the attempt after one that failed, and the text that is kept if none is accepted.

A page moves through the retry steps of a profile in one direction: from the step that failed to the next one that is a remedy
for one of the reasons. So the retries end for all reasons. The first accepted text ends them. When none is accepted,
the best text is kept with the failed page: the one with the least severe reason, in the order of `REJECTIONS`; of two with
the same reason the one with more in it, where repetitions count once; of equals the earlier one. So no attempt makes the
result of a page worse.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import TextLayer

if TYPE_CHECKING:
    from collections.abc import Collection

    from ocrfleet.profiles.profile import Profile, RetryStep
    from ocrfleet.records.pages import PageResult
    from ocrfleet.settings import Settings
    from worker.pipeline.page import Page

#: Reasons for rejecting a text, the least severe first. A truncated text is right up to its end, and a repetition up to its
#: first copy; unparsable text may still be readable, and of a page in an unsupported script some lines are
#: right; text in the wrong script or invented text misleads; an empty text is worse than any other.
REJECTIONS = (
    Reason.TRUNCATED,
    Reason.REPETITION,
    Reason.UNPARSABLE,
    Reason.UNSUPPORTED_SCRIPT,
    Reason.WRONG_SCRIPT,
    Reason.INVENTED,
    Reason.EMPTY,
)


@dataclass(frozen=True, slots=True)
class Step:
    """How an attempt is made."""

    #: of the retry step in this worker's profile; 0 is the profile without changes
    number: int
    #: the same over all profiles that had the page: what results and run records say
    rung: int
    #: the profile, changed by the retry step
    profile: Profile
    #: whether the PDF's text layer is used in this attempt
    text_layer: TextLayer

    @property
    def only_text_layer(self) -> bool:
        """Whether the profile allows no other result for the page than the PDF's text layer."""
        return self.text_layer is TextLayer.ONLY and not self.number


class RetryPolicy:
    """Chooses the attempts at a page from the retry steps of one profile."""

    def __init__(self, profile: Profile, settings: Settings) -> None:
        self._profile = profile
        self._steps = profile.ladder
        self._page_attempts = settings.page_attempts
        self._page_deadline = settings.page_deadline

    def candidates(self, page: Page) -> list[int]:
        """Return the numbers of the steps that may be tried next, the best one first."""
        retry = page.retry
        if retry is None:
            return [0]
        reasons = {retry.fell} | ({page.best.reason} if page.best is not None and page.best.reason else set())
        numbers = steps_above(self._steps, retry.rung, reasons)
        exhausted = page.faults.attempts >= self._page_attempts
        if page.sent_on.get(self._profile.name) == retry.rung:
            numbers.insert(0, retry.rung)  # it was sent on by this step, and stays with the profile that it went to
        elif retry.fell not in REJECTIONS and not exhausted:
            numbers.append(retry.rung)  # a fault may be temporary: repeat the step
        if exhausted:  # the engine gets it no more
            numbers = [number for number in numbers if self._without_engine(number)]
        return [number for number in numbers if number not in page.unavailable]

    def retry_step(self, number: int) -> RetryStep | None:
        """Return a retry step of the profile; None for 0."""
        return self._steps[number - 1] if number else None

    def step(self, page: Page, number: int) -> Step:
        """Return the attempt in this worker for the retry step with this number."""
        profile, text_layer = self._profile_for(page), self._profile.text_layer
        routed, retry_step = page.job.routed, self.retry_step(number)
        if retry_step is not None:
            profile = profile.at(retry_step)
            text_layer = TextLayer.ONLY if retry_step.text_layer else TextLayer.IGNORE
        elif routed is not None and routed.rung is not None:
            # The retry step of another profile wants this engine to read the page, within its limits.
            profile = profile.limited(max_tokens=routed.max_tokens, deadline=routed.deadline)
            text_layer = TextLayer.IGNORE
        # The deadline in the settings holds for every step.
        profile = profile.limited(deadline=self._page_deadline)
        return Step(number, page.steps_before + number, profile, text_layer)

    def _without_engine(self, number: int) -> bool:
        step = self.retry_step(number)
        return step is not None and (step.profile is not None or step.text_layer)

    def _profile_for(self, page: Page) -> Profile:
        """Return the profile with the scripts that the page's document must be in."""
        routed = page.job.routed
        if routed is None or not routed.scripts:
            return self._profile
        judgement = self._profile.judgement.model_copy(update={"scripts": routed.scripts})
        return self._profile.model_copy(update={"judgement": judgement})


def steps_above(steps: tuple[RetryStep, ...], number: int, reasons: Collection[Reason]) -> list[int]:
    """Return the numbers (from 1) of the retry steps above `number` that are a remedy for one of the reasons."""
    return [
        above
        for above, step in enumerate(steps, start=1)
        if above > number and (not step.after or not set(reasons).isdisjoint(step.after))
    ]


def better(result: PageResult, than: PageResult | None) -> PageResult:
    """Return the better one of two rejected results; the second one where they are equally good."""
    return result if than is None or _rank(result) < _rank(than) else than


def _rank(result: PageResult) -> tuple[int, int]:
    severity = REJECTIONS.index(result.reason) if result.reason in REJECTIONS else len(REJECTIONS)
    # The size of the compressed text: copies add little to it.
    return severity, -len(zlib.compress(result.text.encode(errors="replace")))
