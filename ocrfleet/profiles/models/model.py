"""A model as data: what is the same in all of its profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from ocrfleet.errors import Reason
from ocrfleet.profiles.profile import Mode, Parser, Profile, Render, RetryStep, Route, Sampling
from ocrfleet.records.base import Record

#: Tokens of the context that are left for a prompt's words.
PROMPT_ROOM = 256
#: Pixels along a side of what one token shows, in the models that take a page image as large as it is: patches of 14
#: pixels, merged two by two (preprocessor_config.json of each: patch_size, merge_size).
_PATCH = 28

#: What a text is not believed for, where another one may be better.
DOUBTED = (
    Reason.TRUNCATED,
    Reason.REPETITION,
    Reason.EMPTY,
    Reason.INVENTED,
    Reason.WRONG_SCRIPT,
    Reason.UNPARSABLE,
)
#: What is no fault of an answer to a prompt that doesn't ask for the page's text: a description has more letters than the
#: picture, and a page without a table has none.
NOT_OF_THE_PAGE = (Reason.EMPTY, Reason.INVENTED, Reason.WRONG_SCRIPT)
#: What an engine fails with, by itself. A page whose renderer failed is tried again as it was: no rung helps there.
ENGINE_FAULTS = (Reason.ENGINE_FAILED, Reason.ENGINE_DEADLINE)
#: Seconds for an attempt on a GPU: 4,096 tokens at 14 a second, which each of 180 pages at once gets of the published
#: 2,500.
ATTEMPT = 300.0
#: Tokens for a second attempt: four typical pages. A loop that is not seen costs no more than that.
AGAIN = 4096
#: Greedy loops: what fails at temperature 0 fails again in the same way. A text that was cut off would be cut off again.
WARMER = RetryStep(
    after=(*(reason for reason in DOUBTED if reason is not Reason.TRUNCATED), *ENGINE_FAULTS),
    temperature=0.2,
    max_tokens=AGAIN,
    deadline=ATTEMPT,
)
#: What was run here of a model whose published weights are too much for a machine without a GPU.
TRIED_TINY = "by tests with vLLM 0.32 on a CPU, with tiny random weights; not with the published ones, nor on a GPU"


class Prompt(Record):
    """A prompt, and the format of its output."""

    #: with {} where the user's words go
    text: str
    parser: Parser = Parser.TEXT
    #: for a person who chooses
    gives: str
    #: whether it asks for the page's text: only then another reading of it, or the PDF's own, is an answer as well
    reads: bool = False

    @property
    def takes_words(self) -> bool:
        return "{}" in self.text


class Resolution(Record):
    """A resolution at which a model gets page images."""

    render: Render
    #: how its processor cuts the page; None where it takes the page as large as it is
    mode: Mode | None = None

    @property
    def image_tokens(self) -> int:
        """Tokens of a square page image at most."""
        if self.mode is not None:
            return self.mode.image_tokens
        # The processors round each side to whole patches, and no further up than their own limit of pixels.
        return min(round(self.render.long_side / _PATCH) ** 2, self.render.max_pixels // _PATCH**2)


def image_tokens(profile: Profile) -> int:
    """Return the tokens of the prompt that a page image takes at most."""
    return Resolution(render=profile.render, mode=profile.mode).image_tokens


def _only_its_own(ladder: tuple[RetryStep, ...]) -> tuple[RetryStep, ...]:
    if any(rung.profile is not None or rung.text_layer for rung in ladder):
        raise ValueError("a model's own rungs change how it is asked; where else a page may go is the same for all")
    return ladder


class Model(Record):
    """A model that takes prompts."""

    name: str
    #: where it is published
    model: str
    #: a commit of it
    revision: str
    #: the class in its config.json, by which a folder with such a model is known
    architecture: str
    #: tokens of prompt, image and answer together
    context: int
    prompts: Mapping[str, Prompt]
    #: the default one
    prompt: str
    #: see Profile.template
    template: str | None = None
    #: ways to show it a page; the only one of a model that takes a page as large as it is has the name `native`
    modes: Mapping[str, Resolution]
    #: the default one
    mode: str = "native"
    #: as its authors publish it; max_tokens is lowered to what prompt and image leave of the context
    sampling: Sampling
    #: other ways to ask it, for a page that fell; those that are not for a prompt are left out of its profile's ladder
    ladder: Annotated[tuple[RetryStep, ...], AfterValidator(_only_its_own)]
    #: the mode that shows most, where a page goes that fell in another
    largest: str | None = None
    #: pages that go to a smaller or a larger mode with `--mode auto`
    routes: tuple[Route, ...] = Field(default=())
    #: GiB of GPU memory that the weights take, as they are published
    weights_gib: float
    #: KiB of GPU memory that a token takes in the KV cache
    kv_kib: float
    #: what was run of it here, and what was not
    tried: str
