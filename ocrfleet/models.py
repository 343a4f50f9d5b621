"""Models that are asked: their prompts, modes and limits, and the profiles that are made of them.

The prompts `ocr`, `markdown`, `figure`, `describe` and `locate` are those that the models' authors publish (README of
deepseek-ai/DeepSeek-OCR and of DeepSeek-OCR-2); `table`, `math` and `fields` are requests of our own in the same
English, which nobody published a score for. Sizes, token counts and the n-gram guard's numbers are the published ones
(config.py and run_dpsk_ocr_image.py of DeepSeek-OCR-vllm).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ocrfleet.errors import ConfigurationError
from ocrfleet.jobs import Record, digest_of
from ocrfleet.profiles import (
    PROFILES,
    Canary,
    Mode,
    Parser,
    Profile,
    Render,
    Route,
    Rung,
    Sampling,
    resolve,
)

#: Tokens of the context that are left for a prompt's words.
PROMPT_ROOM = 256
#: Characters of what a user may put into a prompt.
_LONGEST_ARGUMENT = 400
#: Characters of a prompt of a user's own: what goes beyond PROMPT_ROOM shortens the answer.
_LONGEST_PROMPT = 4000
#: Bytes of a profile's file, or of a model's config.json, at most.
_LARGEST_FILE = 1 << 20


class Prompt(Record):
    """What a model is asked, and what comes back."""

    #: with {} where the user's words go
    text: str
    parser: Parser = Parser.TEXT
    #: for a person who chooses
    gives: str

    @property
    def takes_words(self) -> bool:
        return "{}" in self.text


class Model(Record):
    """A model that is asked: what is the same in all of its profiles."""

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
    prompt: str
    modes: Mapping[str, Mode]
    mode: str
    #: GiB of GPU memory that the weights take in 16 bits
    weights_gib: float
    #: KiB of GPU memory that a token takes in the KV cache
    kv_kib: float
    render_long_side: Mapping[str, int]
    #: pages that go to a smaller or a larger mode with `--mode auto`
    routes: tuple[Route, ...] = Field(default=())


_PROMPTS = {
    "ocr": Prompt(text="<image>\nFree OCR.", gives="text only"),
    "markdown": Prompt(
        text="<image>\n<|grounding|>Convert the document to markdown.",
        parser=Parser.GROUNDING,
        gives="Markdown, and a box for each block",
    ),
    "figure": Prompt(text="<image>\nParse the figure.", gives="what a chart or a drawing shows"),
    "describe": Prompt(text="<image>\nDescribe this image in detail.", gives="a description"),
    "locate": Prompt(
        text="<image>\nLocate <|ref|>{}<|/ref|> in the image.", parser=Parser.GROUNDING, gives="boxes of what is named"
    ),
    "table": Prompt(text="<image>\nConvert the tables to HTML.", gives="tables as HTML"),
    "math": Prompt(text="<image>\nConvert the formulas to LaTeX.", gives="formulas as LaTeX"),
    "fields": Prompt(text="<image>\nExtract these fields as JSON: {}.", gives="the fields that are named, as JSON"),
}

DEEPSEEK_OCR = Model(
    name="deepseek-ocr",
    model="deepseek-ai/DeepSeek-OCR",
    revision="9f30c71f441d010e5429c532364a86705536c53a",
    architecture="DeepseekOCRForCausalLM",
    context=8192,
    prompts=_PROMPTS,
    prompt="markdown",
    # Tokens as vLLM's processor counts them: a row of the grid ends in one, and one ends the image.
    modes={
        "tiny": Mode(name="tiny", base_size=512, image_size=512, tiles=False, image_tokens=8 * 9 + 1),
        "small": Mode(name="small", base_size=640, image_size=640, tiles=False, image_tokens=10 * 11 + 1),
        "base": Mode(name="base", base_size=1024, image_size=1024, tiles=False, pad=True, image_tokens=16 * 17 + 1),
        "large": Mode(name="large", base_size=1280, image_size=1280, tiles=False, pad=True, image_tokens=20 * 21 + 1),
        # Up to six tiles, in three rows of two at most tokens, and the whole page.
        "gundam": Mode(
            name="gundam", base_size=1024, image_size=640, tiles=True, image_tokens=16 * 17 + 1 + 6 * 10 * (10 + 1)
        ),
    },
    mode="gundam",
    weights_gib=6.7,
    # 12 layers x 10 heads x 128 x (key, value) x 2 bytes
    kv_kib=60.0,
    # The published scripts draw at 144 dpi: an A4 page is 1,684 pixels long.
    render_long_side={"tiny": 512, "small": 640, "base": 1024, "large": 1280, "gundam": 1684},
    routes=(
        # A postcard or an index card gains nothing from tiles; a faint or nearly empty page holds little text.
        Route(to="deepseek-ocr-base", max_inches=6.5),
        Route(to="deepseek-ocr-large", max_ink=0.015),
    ),
)

DEEPSEEK_OCR_2 = Model(
    name="deepseek-ocr-2",
    model="deepseek-ai/DeepSeek-OCR-2",
    revision="aaa02f3811945a91062062994c5c4a3f4c0af2b0",
    architecture="DeepseekOCR2ForCausalLM",
    context=8192,
    prompts=_PROMPTS,
    prompt="markdown",
    modes={
        "dynamic": Mode(
            name="dynamic", base_size=1024, image_size=768, tiles=True, image_tokens=16 * 16 + 1 + 6 * 12 * 12
        )
    },
    mode="dynamic",
    weights_gib=6.8,
    kv_kib=60.0,
    render_long_side={"dynamic": 1684},
)

MODELS = (DEEPSEEK_OCR, DEEPSEEK_OCR_2)

#: Ids of <td> and </td>, which a table may repeat.
_TABLE_CELLS = (128821, 128822)


def profile_of(model: Model, *, engine: str = "vllm", mode: str | None = None, prompt: str | None = None) -> Profile:
    """Return a model's profile for an engine (`vllm` or `openai`), a mode and a prompt; its defaults where None.

    `prompt` is a name, `name:words` for one that takes words, or the user's own with <image> in it. Mode `auto` is the
    default mode with the model's routes. Raises ConfigurationError.
    """
    auto = mode == "auto"
    chosen = model.modes.get(model.mode if mode is None or auto else mode)
    if chosen is None or (auto and not model.routes):
        there_are = ", ".join([*model.modes, *(["auto"] if model.routes else [])])
        raise ConfigurationError(f"{model.name} has no mode {mode!r}; there are: {there_are}")
    asked, told = _asked(model, prompt)
    if auto and told:
        raise ConfigurationError("--mode auto goes with the model's default prompt only")
    return Profile(
        name="-".join(
            part
            for part in (
                "" if engine == "vllm" else engine,
                model.name,
                "auto" if auto else "" if chosen.name == model.mode else chosen.name,
                told,
            )
            if part
        ),
        engine=engine,
        model=model.model,
        revision=model.revision,
        prompt=asked.text,
        sampling=Sampling(
            max_tokens=model.context - chosen.image_tokens - PROMPT_ROOM,
            ngram_size=30,
            ngram_window=90,
            ngram_whitelist=_TABLE_CELLS,
        ),
        mode=chosen,
        parser=asked.parser,
        render=Render(long_side=model.render_long_side[chosen.name]),
        # What fails at temperature 0 fails again in the same way: a little warmth, as olmOCR does from its third try on.
        ladder=(Rung(temperature=0.2),),
        routes=model.routes if auto else (),
        canary=Canary(words=("ferry", "nine"), prompt=model.prompts["ocr"].text),
        typical_seconds=86_400 / 200_000,
    )


def _asked(model: Model, prompt: str | None) -> tuple[Prompt, str]:
    """Return what a model is asked, and how a profile's name says it ("" for the default)."""
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


def named() -> Iterator[Profile]:
    """Yield every profile that has a name of its own: those that `--profile` takes."""
    yield from PROFILES.values()
    for model in MODELS:
        for mode in [*model.modes, *(["auto"] if model.routes else [])]:
            for name, prompt in model.prompts.items():
                if not prompt.takes_words and not (mode == "auto" and name != model.prompt):
                    yield profile_of(model, mode=mode, prompt=None if name == model.prompt else name)


def find(name: str) -> Profile:
    """Return the profile called `name`, or the one that a JSON file, or JSON itself, describes.

    Raises ConfigurationError.
    """
    if name.startswith("{"):
        try:
            return Profile.model_validate_json(name)
        except ValidationError as error:
            raise ConfigurationError(f"the profile can't be used: {_problems(error)}") from error
    if name.endswith(".json"):
        return read_file(Path(name))
    return _called(name)


def _called(name: str) -> Profile:
    for profile in named():
        if profile.name == name:
            return profile
    raise ConfigurationError(f"there is no profile {name!r}: `ocrfleet models` lists them; or name a .json file")


def read_file(path: Path) -> Profile:
    """Return the profile that a JSON file describes: all of it, or what differs from the profile that it `extends`.

    It needs a name of its own unless it reads as the profile of that name does: a name is a queue's, and a worker reads
    what it finds there in one way. A `model_path` is taken from where the file lies. Raises ConfigurationError.
    """
    facts = _read_json(path, "the profile")
    base = facts.pop("extends", None)
    whole: dict[str, Any] = {}
    if base is not None:
        if not isinstance(base, str) or base.startswith("{") or base.endswith(".json"):
            raise ConfigurationError(
                f"the profile {path}: extends is the name of a profile; `ocrfleet models` lists them"
            )
        whole = _called(base).model_dump(mode="json")
    if isinstance(facts.get("model_path"), str):
        facts["model_path"] = str(path.parent / facts["model_path"])
    try:
        profile = Profile.model_validate_json(json.dumps(whole | facts))
    except ValidationError as error:
        raise ConfigurationError(f"the profile {path} can't be used: {_problems(error)}") from error
    if any(known.name == profile.name and known.digest != profile.digest for known in named()):
        raise ConfigurationError(
            f"the profile {path}: {profile.name} is another profile's name; give it one of its own"
        )
    return profile


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))


def choose(
    *,
    engine: str | None = None,
    profile: str | None = None,
    model: str | None = None,
    mode: str | None = None,
    prompt: str | None = None,
    language: str | None = None,
) -> Profile:
    """Return the profile that a person's options name; RapidOCR's when there are none. Raises ConfigurationError.

    `model` is the name of a model of ours, the place where it is published, or a folder with its files; for `openai` it
    may be any name that the server knows a model by.
    """
    if profile is not None:
        if any(option is not None for option in (engine, model, mode, prompt, language)):
            raise ConfigurationError("--profile says all: leave out --engine, --model, --mode, --prompt and --language")
        return find(profile)
    if engine is None:
        engine = "rapidocr" if model is None else "vllm"
    if engine in {"vllm", "openai"}:
        if language is not None:
            raise ConfigurationError(f"--engine {engine} needs no --language: its models read what they know")
        return _of_model(model or DEEPSEEK_OCR.name, engine=engine, mode=mode, prompt=prompt)
    if any(option is not None for option in (model, mode, prompt)):
        raise ConfigurationError(f"--model, --mode and --prompt are for --engine vllm and openai, not {engine}")
    return resolve(engine, language=language)


def _of_model(model: str, *, engine: str, mode: str | None, prompt: str | None) -> Profile:
    for what, told in (("--model", model), ("--prompt", prompt or "")):
        # A command line's bytes that are no UTF-8: they can't stand in a record.
        if re.search(r"[\ud800-\udfff]", told):
            raise ConfigurationError(f"{what} {told!r} is no text in UTF-8")
    for known in MODELS:
        if model.lower() in {known.name, known.model.lower()}:
            return profile_of(known, engine=engine, mode=mode, prompt=prompt)
    if engine == "openai":
        return _served(model, mode=mode, prompt=prompt)
    if (Path(model) / "config.json").is_file():
        return _in_folder(Path(model), mode=mode, prompt=prompt)
    raise ConfigurationError(
        f"there is no model {model!r}: it is neither a folder with a config.json nor one of "
        f"{', '.join(known.model for known in MODELS)}"
    )


def _in_folder(folder: Path, *, mode: str | None, prompt: str | None) -> Profile:
    """Return the profile of a model whose files lie in a folder: its revision is a digest of what tells it from others."""
    config = _read_json(folder / "config.json", "the model's config")
    architectures = config.get("architectures")
    for known in MODELS:
        if architectures == [known.architecture]:
            break
    else:
        raise ConfigurationError(f"the model in {folder} is a {architectures}, which no profile is for")
    base = profile_of(known, mode=mode, prompt=prompt)
    sha = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        sha.update(f"{path.name} {path.stat().st_size}\n".encode())
    revision = f"local-{sha.hexdigest()[:12]}"
    return base.model_copy(
        update={"name": f"{base.name}-{revision}", "revision": revision, "model_path": folder.absolute()}
    )


def _served(model: str, *, mode: str | None, prompt: str | None) -> Profile:
    """Return the profile of a model of which nothing is known but the name that a server gives it."""
    if mode is not None:
        raise ConfigurationError(f"--mode is for models that are known; the server decides how it shows {model} a page")
    if prompt is not None and prompt.partition(":")[0] not in _PROMPTS and "<image>" not in prompt:
        raise ConfigurationError(f"--prompt {prompt!r}: one of {', '.join(_PROMPTS)}, or your own with <image> in it")
    asked, told = _asked(DEEPSEEK_OCR, prompt or "ocr")
    slug = re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-.")[:32] or "model"
    return Profile(
        name=f"openai-{slug}-{digest_of(model, told)[:8]}",
        engine="openai",
        model=model,
        revision="served",
        prompt=asked.text,
        sampling=Sampling(max_tokens=8192),
        parser=asked.parser,
        render=Render(long_side=1684),
        ladder=(Rung(temperature=0.2),),
        canary=Canary(words=("ferry", "nine"), prompt=_PROMPTS["ocr"].text),
    )


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_FILE + 1)
        facts = json.loads(data) if len(data) <= _LARGEST_FILE else None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{what} {path} can't be read: {error}") from error
    if not isinstance(facts, dict):
        raise ConfigurationError(f"{what} {path} is no JSON object of at most {_LARGEST_FILE >> 20} MiB")
    return facts
