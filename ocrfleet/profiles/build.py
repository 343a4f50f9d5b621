"""Build a model's profile for an engine, a mode and a prompt, with its retry policy."""

from __future__ import annotations

import re

from ocrfleet.errors import ConfigurationError
from ocrfleet.profiles.models.model import ATTEMPT, DOUBTED, ENGINE_FAULTS, NOT_OF_THE_PAGE, PROMPT_ROOM, Model, Prompt
from ocrfleet.profiles.profile import RAPIDOCR, Canary, Judgement, Parser, Profile, RetryStep
from ocrfleet.records.base import digest_of

#: The most characters of the user's words in a prompt.
_LONGEST_ARGUMENT = 400
#: The most characters of a user's own prompt: the part beyond PROMPT_ROOM shortens the output.
_LONGEST_PROMPT = 4000

_FAILED = (*DOUBTED, *ENGINE_FAULTS)
#: Last steps of each retry policy: the text layer, then an engine that neither invents text nor loops. The deadline in seconds
#: is about eighty times a page's usual time there.
LAST_STEPS = (
    RetryStep(after=_FAILED, text_layer=True),
    RetryStep(after=_FAILED, profile=RAPIDOCR.name, deadline=120.0),
)


def profile_of(model: Model, *, engine: str = "vllm", mode: str | None = None, prompt: str | None = None) -> Profile:
    """Return a model's profile for an engine (`vllm` or `openai`), a mode and a prompt; its defaults where None.

    `prompt` is a name, `name:words` for one that takes words, or the user's own with <image> in it. Mode `auto` is the
    default mode together with the model's routes. Raises ConfigurationError.
    """
    auto = mode == "auto"
    at = model.mode if mode is None or auto else mode
    resolution = model.modes.get(at)
    if resolution is None or (auto and not model.routes):
        there_are = ", ".join([*model.modes, *(["auto"] if model.routes else [])])
        raise ConfigurationError(f"{model.name} has no mode {mode!r}; there are: {there_are}")
    chosen, suffix = prompt_called(model, prompt)
    if auto and suffix:
        raise ConfigurationError("--mode auto goes with the model's default prompt only")
    room = model.context - resolution.image_tokens - PROMPT_ROOM
    return Profile(
        name=_name(model, "auto" if auto else at, suffix, engine=engine),
        engine=engine,
        model=model.model,
        revision=model.revision,
        prompt=chosen.text,
        template=model.template,
        sampling=model.sampling.model_copy(update={"max_tokens": min(model.sampling.max_tokens, room)}),
        mode=resolution.mode,
        parser=chosen.parser,
        render=resolution.render,
        judgement=judgement_of(chosen),
        ladder=_ladder(model, at, chosen, suffix),
        routes=model.routes if auto else (),
        canary=Canary(words=("ferry", "nine"), prompt=model.prompts.get("ocr", model.prompts[model.prompt]).text),
        typical_seconds=86_400 / 200_000,
    )


def judgement_of(chosen: Prompt) -> Judgement:
    """Return the thresholds for the output of a prompt."""
    return Judgement(ignored=() if chosen.reads else NOT_OF_THE_PAGE)


def _name(model: Model, mode: str, suffix: str, *, engine: str = "vllm") -> str:
    parts = ("" if engine == "vllm" else engine, model.name, "" if mode == model.mode else mode, suffix)
    return "-".join(part for part in parts if part)


def _ladder(model: Model, mode: str, chosen: Prompt, suffix: str) -> tuple[RetryStep, ...]:
    """Return the retry policy for a prompt. One that does not ask for the page's text is not replaced by another."""
    own = tuple(step for step in model.ladder if step.prompt is None or (chosen.reads and step.prompt != chosen.text))
    if not chosen.reads:
        return own
    larger: tuple[RetryStep, ...] = ()
    if model.largest is not None and mode != model.largest:
        larger = (RetryStep(after=_FAILED, profile=_name(model, model.largest, suffix), deadline=ATTEMPT),)
    return (*own, *larger, *LAST_STEPS)


def prompt_called(model: Model, prompt: str | None) -> tuple[Prompt, str]:
    """Return a prompt, and its part of the profile's name ("" for the default). Raises ConfigurationError."""
    if prompt is None:
        return model.prompts[model.prompt], ""
    name, colon, words = prompt.partition(":")
    known = model.prompts.get(name)
    if "<image>" in prompt and not (known and known.takes_words):
        if prompt.count("<image>") != 1:
            raise ConfigurationError("a prompt of your own needs <image> once: that is where the page goes")
        if len(prompt) > _LONGEST_PROMPT:
            raise ConfigurationError(f"a prompt of your own has at most {_LONGEST_PROMPT} characters")
        parser = Parser.GROUNDING if "<|grounding|>" in prompt else Parser.TEXT
        return Prompt(text=prompt, parser=parser, gives=""), f"own-{digest_of(prompt)[:8]}"
    if known is None:
        raise ConfigurationError(
            f"{model.name} has no prompt {name!r}; there are: {', '.join(model.prompts)}, or your own with <image> in it"
        )
    if known.takes_words != bool(words.strip()) or (colon and not known.takes_words):
        usage = f"{name}:WORDS" if known.takes_words else name
        raise ConfigurationError(f"--prompt {prompt!r}: write {usage}")
    if not known.takes_words:
        return known, "" if name == model.prompt else name
    words = " ".join(words.split())
    if len(words) > _LONGEST_ARGUMENT or re.search(r"<\||\|>|<image>", words):
        raise ConfigurationError(f"the words of --prompt {name}: at most {_LONGEST_ARGUMENT} characters, and no tags")
    return known.model_copy(update={"text": known.text.replace("{}", words)}), f"{name}-{digest_of(words)[:8]}"
