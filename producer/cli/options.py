"""What the commands' options mean: from text to values, or a UsageError."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from ocrfleet.errors import ConfigurationError
from ocrfleet.markdown.style import Tables
from ocrfleet.profiles.models import MODELS, choose
from ocrfleet.profiles.profile import Profile, TextLayer, adapted
from ocrfleet.records.submissions import SubmissionOptions
from ocrfleet.settings import OpenAiSettings, Settings
from producer.errors import UsageError
from producer.triggers.filters import Prefix

WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Worker processes; by default one for each GPU, or for each core without one."),
]

EngineOption = Annotated[
    str | None,
    typer.Option(
        help="What reads the pages: [b]rapidocr[/] (the default), [b]tesseract[/], [b]vllm[/], [b]openai[/] (a server "
        "that speaks its protocol), or package.module:Class of your own.",
        rich_help_panel="What reads the pages",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help=f"For vllm and openai: {', '.join(model.model for model in MODELS)}; for vllm, a folder with such a model; "
        "for openai, any name that the server knows.",
        rich_help_panel="What reads the pages",
    ),
]
ModeOption = Annotated[
    str | None,
    typer.Option(
        help="Resolution of a model that has several; [b]auto[/] sends pages where they fit best. See ocrfleet models.",
        rich_help_panel="What reads the pages",
    ),
]
PromptOption = Annotated[
    str | None,
    typer.Option(
        help="What a model is asked: [b]markdown[/] (the default), [b]ocr[/], [b]fields:name,date[/], … (see ocrfleet "
        "models), or your own words with <image> in them.",
        rich_help_panel="What reads the pages",
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        help="All of that in one name (see ocrfleet models), or a JSON file of your own.",
        rich_help_panel="What reads the pages",
    ),
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        help="Languages for engines that must be told, e.g. [b]deu+Fraktur[/].", rich_help_panel="What reads the pages"
    ),
]
TextLayerOption = Annotated[
    TextLayer,
    typer.Option(
        help="The text that a PDF page has already: [b]ignore[/] it and read the page (it may still be a last resort), "
        "[b]prefer[/] it where it can be trusted, or take it [b]only[/], and fail other pages.",
        rich_help_panel="What reads the pages",
    ),
]
ScriptOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A script that the pages are in, as [b]latin[/] or [b]cyrillic[/]; may be given several times. A text that is "
        "mostly in others is not believed.",
        rich_help_panel="What reads the pages",
    ),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option(
        help="For openai: the server, e.g. http://127.0.0.1:8000/v1. Its key is OCRFLEET_OPENAI_API_KEY or OPENAI_API_KEY.",
        rich_help_panel="What reads the pages",
    ),
]

TablesOption = Annotated[
    Tables,
    typer.Option(
        help="Tables in the Markdown: [b]html[/], or [b]markdown[/] where no cell spans others or has several lines.",
        rich_help_panel="How the text is written",
    ),
]
JoinHyphensOption = Annotated[
    bool,
    typer.Option(
        "--join-hyphens/--keep-hyphens",
        help="Write words whole in the Markdown that were divided at the end of a line.",
        rich_help_panel="How the text is written",
    ),
]


def read_settings(password_file: Path | None = None, base_url: str | None = None) -> Settings:
    """Read OCRFLEET_* and the options that stand for one of them. Raises UsageError."""
    told: dict[str, object] = {}
    try:
        if password_file is not None:
            told["password_file"] = password_file.absolute()
        if base_url is not None:
            told["openai"] = OpenAiSettings(base_url=base_url)
        settings = Settings.model_validate(Settings(**told)) if told else Settings()  # type: ignore[arg-type]
    except ValidationError as error:
        raise UsageError(
            "; ".join(f"{_variable(e['loc'], error.title)}: {e['msg']}" for e in error.errors())
        ) from error
    try:
        settings.passwords()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the password file {settings.password_file} can't be read: {error}") from error
    return settings


def _variable(location: tuple[int | str, ...], settings: str) -> str:
    """Return the environment variable that a setting is read from."""
    prefixes = {"VllmSettings": "VLLM_", "OpenAiSettings": "OPENAI_", "S3Settings": "S3_", "ApiSettings": "API_"}
    prefix = prefixes.get(settings, "")
    return f"OCRFLEET_{prefix}{str(location[0]).upper()}"


def read_profile(
    *,
    engine: EngineOption = None,
    profile: ProfileOption = None,
    model: ModelOption = None,
    mode: ModeOption = None,
    prompt: PromptOption = None,
    language: LanguageOption = None,
    text_layer: TextLayerOption = TextLayer.IGNORE,
    script: ScriptOption = None,
) -> Profile:
    """Return the profile that the options name. Raises UsageError."""
    try:
        chosen = choose(engine=engine, profile=profile, model=model, mode=mode, prompt=prompt, language=language)
        return adapted(chosen, text_layer=text_layer, scripts=tuple(script or ()))
    except ConfigurationError as error:
        raise UsageError(str(error)) from error


def with_profile(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `read_profile`, as Typer reads them from its signature; it gets `chosen` for them."""
    own = dict(inspect.signature(command, eval_str=True).parameters)
    del own["chosen"]
    options = inspect.signature(read_profile, eval_str=True).parameters

    @functools.wraps(command)
    def with_options(*given: Any, **known: Any) -> None:
        asked = {name: known.pop(name) for name in options if name in known}
        command(*given, **known, chosen=read_profile(**asked))

    with_options.__signature__ = inspect.Signature([*own.values(), *options.values()])  # type: ignore[attr-defined]
    return with_options


def read_terms(*, collection: str, results: str | None, **known: Any) -> SubmissionOptions:
    """Return the terms of a submission, with what else Terms has. Raises UsageError."""
    folder = None if results is None else str(Prefix.folder(results))
    try:
        return SubmissionOptions(collection=collection, results=folder, **known)
    except ValidationError:
        raise UsageError(
            f"--collection {collection!r}: letters, digits, dots, dashes and underscores, 64 at most, and no dot first"
        ) from None


def read_group(group: str | None) -> bool:
    """Say whether the images of a folder are one document. Raises UsageError."""
    if group not in {None, "folder"}:
        raise UsageError(f"--group takes 'folder', not {group!r}")
    return group == "folder"
