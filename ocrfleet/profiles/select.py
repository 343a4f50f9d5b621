"""Select a profile by its name, by options, by a file, or by a folder with a model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ocrfleet.errors import ConfigurationError
from ocrfleet.profiles.build import LAST_STEPS, judgement_of, profile_of, prompt_called
from ocrfleet.profiles.models import MODELS
from ocrfleet.profiles.models.deepseek import DEEPSEEK_OCR
from ocrfleet.profiles.models.model import WARMER
from ocrfleet.profiles.profile import PROFILES, Canary, Profile, Render, Sampling, resolve
from ocrfleet.records.base import digest_of

#: Revision of a model of which only the server's name is known.
SERVED = "served"

#: Bytes of a profile's file, or of a model's config.json, at most.
_LARGEST_FILE = 1 << 20


def named() -> Iterator[Profile]:
    """Yield each profile that `--profile` takes by name."""
    yield from PROFILES.values()
    for model in MODELS:
        for mode in [*model.modes, *(["auto"] if model.routes else [])]:
            for name, prompt in model.prompts.items():
                if not prompt.takes_words and not (mode == "auto" and name != model.prompt):
                    yield profile_of(model, mode=mode, prompt=None if name == model.prompt else name)


def find(name: str) -> Profile:
    """Return the profile called `name`, or the one that a JSON file or a JSON text describes.

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
    """Return the profile in a JSON file: all of it, or its differences to the profile that it `extends`.

    It must have a name of its own, unless it gives the same texts as the profile of that name: queues have the names of
    profiles. A relative `model_path` starts at the file's folder. Raises ConfigurationError.
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
    """Return the profile that the options of a command name; RapidOCR's without options. Raises ConfigurationError.

    `model` is the name of a known model, its repository, or a folder with its files; for `openai` it may be any name of a
    model on the server.
    """
    if profile is not None:
        if any(option is not None for option in (engine, model, mode, prompt, language)):
            raise ConfigurationError(
                "--profile includes these options: leave out --engine, --model, --mode, --prompt and --language"
            )
        return find(profile)
    if engine is None:
        engine = "rapidocr" if model is None else "vllm"
    if engine in {"vllm", "openai"}:
        if language is not None:
            raise ConfigurationError(f"--engine {engine} needs no --language: it reads the scripts of its models")
        return _of_model(model or DEEPSEEK_OCR.name, engine=engine, mode=mode, prompt=prompt)
    if any(option is not None for option in (model, mode, prompt)):
        raise ConfigurationError(f"--model, --mode and --prompt are for --engine vllm and openai, not {engine}")
    return resolve(engine, language=language)


def _of_model(model: str, *, engine: str, mode: str | None, prompt: str | None) -> Profile:
    for what, told in (("--model", model), ("--prompt", prompt or "")):
        # Bytes of a command line that are no UTF-8: a record can't have them.
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
    """Return the profile of a model in a folder; its revision is a digest of the files that identify it."""
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
    """Return the profile of a model of which only the server's name for it is known."""
    if mode is not None:
        raise ConfigurationError(f"--mode is for models that are known; the server decides how it shows {model} a page")
    if prompt is not None and prompt.partition(":")[0] not in DEEPSEEK_OCR.prompts and "<image>" not in prompt:
        raise ConfigurationError(
            f"--prompt {prompt!r}: one of {', '.join(DEEPSEEK_OCR.prompts)}, or your own with <image> in it"
        )
    asked, told = prompt_called(DEEPSEEK_OCR, prompt or "ocr")
    slug = re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-.")[:32] or "model"
    return Profile(
        name=f"openai-{slug}-{digest_of(model, told)[:8]}",
        engine="openai",
        model=model,
        revision=SERVED,
        prompt=asked.text,
        sampling=Sampling(max_tokens=8192),
        parser=asked.parser,
        render=Render(long_side=1684),
        judgement=judgement_of(asked),
        ladder=(WARMER, *(LAST_STEPS if asked.reads else ())),
        canary=Canary(words=("ferry", "nine"), prompt=DEEPSEEK_OCR.prompts["ocr"].text),
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
