"""A model as data: the properties that all of its profiles share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import Mode, Parser, Profile, Render, RetryStep, Route, Sampling
from ocrfleet.records.base import Record

#: Tokens of the context that are reserved for a prompt's words.
PROMPT_ROOM = 256
#: Side in pixels of the area of one token, in the models without resolution modes: patches of 14 pixels, merged two by two
#: (preprocessor_config.json of each: patch_size, merge_size).
_PATCH = 28

#: Reasons for which a text is rejected and another attempt may give a better one.
DOUBTED = (
    Reason.TRUNCATED,
    Reason.REPETITION,
    Reason.EMPTY,
    Reason.INVENTED,
    Reason.WRONG_SCRIPT,
    Reason.UNPARSABLE,
)
#: Reasons that are ignored for a prompt that doesn't ask for the page's text: a description has more letters than the picture,
#: and a page without a table has none.
NOT_OF_THE_PAGE = (Reason.EMPTY, Reason.INVENTED, Reason.WRONG_SCRIPT)
#: Faults of an engine. A page whose renderer failed is tried again unchanged: no retry step is a remedy for it.
ENGINE_FAULTS = (Reason.ENGINE_FAILED, Reason.ENGINE_DEADLINE)
#: Seconds for an attempt on a GPU: 4,096 tokens at 14 a second, the share of each of 180 simultaneous pages in the published
#: 2,500.
ATTEMPT = 300.0
#: Tokens for a second attempt: four typical pages. This limits the cost of an undetected loop.
AGAIN = 4096
#: Steps with another temperature: what fails at temperature 0 fails again in the same way. Truncated text would be truncated
#: again.
WARMER = RetryStep(
    after=(*(reason for reason in DOUBTED if reason is not Reason.TRUNCATED), *ENGINE_FAULTS),
    temperature=0.2,
    max_tokens=AGAIN,
    deadline=ATTEMPT,
)
#: What was tested of a model whose published weights are too large for a machine without a GPU.
TRIED_TINY = "by tests with vLLM 0.32 on a CPU, with tiny random weights; not with the published ones, nor on a GPU"


class Prompt(Record):
    """A prompt, and the format of its output."""

    #: {} is replaced by the user's words
    text: str
    parser: Parser = Parser.TEXT
    #: description for users
    gives: str
    #: whether it asks for the page's text: only then the output of another engine, or the text layer, can replace its output
    reads: bool = False

    @property
    def takes_words(self) -> bool:
        return "{}" in self.text


class Resolution(Record):
    """A resolution mode of a model."""

    render: Render
    #: how its processor cuts the page; None if it takes the page image at its size
    mode: Mode | None = None

    @property
    def image_tokens(self) -> int:
        """The most tokens of a square page image."""
        if self.mode is not None:
            return self.mode.image_tokens
        # The processors round each side to whole patches, up to their limit of pixels.
        return min(round(self.render.long_side / _PATCH) ** 2, self.render.max_pixels // _PATCH**2)


def image_tokens(profile: Profile) -> int:
    """Return the most tokens that a page image takes of the prompt."""
    return Resolution(render=profile.render, mode=profile.mode).image_tokens


def _only_its_own(ladder: tuple[RetryStep, ...]) -> tuple[RetryStep, ...]:
    if any(rung.profile is not None or rung.text_layer for rung in ladder):
        raise ValueError("a model's own rungs change how it is asked; where else a page may go is the same for all")
    return ladder


class Model(Record):
    """A model that takes prompts."""

    name: str
    #: name of its repository
    model: str
    #: a commit of it
    revision: str
    #: the class in its config.json, which identifies a folder with such a model
    architecture: str
    #: tokens of prompt, image and answer together
    context: int
    prompts: Mapping[str, Prompt]
    #: the default one
    prompt: str
    #: see Profile.template
    template: str | None = None
    #: resolution modes; a model that takes a page image at its size has a single one, `native`
    modes: Mapping[str, Resolution]
    #: the default one
    mode: str = "native"
    #: as its authors publish it; max_tokens is lowered to the rest of the context after prompt and image
    sampling: Sampling
    #: retry steps with this model; a prompt's profile has only those that suit the prompt
    ladder: Annotated[tuple[RetryStep, ...], AfterValidator(_only_its_own)]
    #: the mode with the highest resolution, for a retry after another mode failed
    largest: str | None = None
    #: routes of pages to a smaller or a larger mode with `--mode auto`
    routes: tuple[Route, ...] = Field(default=())
    #: GiB of GPU memory for the published weights
    weights_gib: float
    #: KiB of GPU memory for a token in the KV cache
    kv_kib: float
    #: what was tested of it, and what was not
    tried: str
